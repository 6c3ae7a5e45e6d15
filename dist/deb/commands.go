package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// commandsPage is culvert(1): what the program says of itself and of each command.
func commandsPage(run func(name string, args ...string) ([]byte, error), program string, rel release) ([]byte, error) {
	overview, err := run(program, "help")
	if err != nil {
		return nil, err
	}
	list, err := run(program, "__complete", "")
	if err != nil {
		return nil, err
	}
	p := newPage("culvert", "1", "culvert", rel)
	title, rest, _ := strings.Cut(string(overview), "\n")
	_, about, ok := strings.Cut(title, ": ")
	if !ok {
		return nil, fmt.Errorf("culvert help begins with %q", title)
	}
	p.section("Name")
	p.paragraph(escape("culvert") + ` \- ` + escape(about))
	p.section("Synopsis")
	p.paragraph(bold("culvert") + ` \fICOMMAND\fR [\fIARGUMENTS\fR]`)
	p.section("Description")
	p.help(rest)
	p.section("Commands")
	n := 0
	for line := range strings.Lines(string(list)) {
		name, short, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok || strings.HasPrefix(name, ":") {
			continue
		}
		text, err := run(program, name, "--help")
		if err != nil {
			return nil, err
		}
		n++
		p.subsection("culvert " + name + ": " + short)
		p.help(string(text))
	}
	if n == 0 {
		return nil, errors.New("culvert __complete knows no commands")
	}
	p.section("Files")
	for _, f := range [][2]string{
		{"/etc/culvert/NAME.yaml", "configuration, see culvert.yaml(5); culvert@NAME.service runs it"},
		{"/etc/culvert/keys", "keys of services, of root alone"},
		{"/run/culvert, /run/culvert-service", "control sockets and logs of daemons, those started by hand and those of services"},
		{"/var/lib/culvert, /var/lib/culvert-service", "what they keep: journals of what was set up, clients of servers"},
		{"/usr/share/culvert/systemd", "additions to the unit for files that need more than it gives"},
		{"/usr/share/doc/culvert", "documentation and examples"},
	} {
		p.entry(bold(f[0]), escape(f[1]))
	}
	p.section("See also")
	p.paragraph(`\fBculvert.yaml\fR(5), \fBwg\fR(8), \fBsystemd.service\fR(5)`)
	return []byte(p.String()), nil
}

var (
	usageLine = regexp.MustCompile(`^(Usage: | {7})(culvert.*)$`)
	listed    = regexp.MustCompile(`^  (\S(?:.*?\S)?) {2,}(\S.*)$`)
)

// help writes a text of the program's help: paragraphs, usage, lists of terms that are indented by two, with what they mean in a column of its
// own, and what else is indented as it is.
func (p *roff) help(text string) {
	var filled, verbatim, usage []string
	var term, meaning string
	flush := func() {
		switch {
		case usage != nil:
			for i, l := range usage {
				if i > 0 {
					p.WriteString(".br\n")
				} else if !p.begun {
					p.WriteString(".PP\n")
				}
				p.WriteString(bold(l) + "\n")
			}
			p.begun = false
		case filled != nil:
			p.paragraph(escape(strings.Join(filled, " ")))
		case verbatim != nil:
			p.verbatim(verbatim)
		case term != "":
			p.entry(bold(term), escape(meaning))
		}
		filled, verbatim, usage, term, meaning = nil, nil, nil, "", ""
	}
	s := bufio.NewScanner(bytes.NewBufferString(strings.TrimSpace(text)))
	for s.Scan() {
		line := s.Text()
		indent := len(line) - len(strings.TrimLeft(line, " "))
		found, words := listed.FindStringSubmatch(line), strings.TrimSpace(line)
		switch use := usageLine.FindStringSubmatch(line); {
		case words == "":
			flush()
		case use != nil && (strings.HasPrefix(use[1], "U") || usage != nil):
			if usage == nil {
				flush()
			}
			usage = append(usage, use[2])
		case found != nil:
			flush()
			term, meaning = found[1], found[2]
		case term != "" && indent > 2:
			meaning += " " + words
		case indent >= 2:
			if verbatim == nil {
				flush()
			}
			verbatim = append(verbatim, line[2:])
		default:
			if filled == nil {
				flush()
			}
			filled = append(filled, words)
		}
	}
	flush()
}
