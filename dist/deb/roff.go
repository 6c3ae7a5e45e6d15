package main

import (
	"fmt"
	"strings"
)

// roff is a manual page as it is written, in man(7)'s macros.
type roff struct {
	strings.Builder
	begun bool // the last line was a macro's after which a paragraph needs no .PP
}

// newPage begins a page.
func newPage(name, section, title string, rel release) *roff {
	p := &roff{}
	p.WriteString(".\\\" Made by dist/deb from the program's help and from docs/.\n")
	fmt.Fprintf(p, ".TH %s %s %s %s %s\n", strings.ToUpper(name), section, rel.date.Format("2006-01-02"), quoted("culvert "+rel.version), quoted(title))
	p.WriteString(".nh\n.ad l\n") // neither hyphens nor gaps in keys and commands
	return p
}

// escape makes text that stands for itself. A hyphen is what can be typed.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", "\\(ga", `^`, `\(ha`, `~`, `\(ti`, "×", `\(mu`, "µ", `\(mc`, "→", `\(->`, "≤", `\(<=`, "≥", `\(>=`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

// quoted makes an argument of a macro.
func quoted(s string) string { return `"` + strings.ReplaceAll(escape(s), `"`, `\(dq`) + `"` }

func (p *roff) section(title string) {
	fmt.Fprintf(p, ".SH %s\n", quoted(strings.ToUpper(title)))
	p.begun = true
}

func (p *roff) subsection(title string) {
	fmt.Fprintf(p, ".SS %s\n", quoted(title))
	p.begun = true
}

// paragraph writes text that is filled. It is given as it goes into the page, with escapes.
func (p *roff) paragraph(text string) {
	if text = strings.TrimSpace(text); text == "" {
		return
	}
	if !p.begun {
		p.WriteString(".PP\n")
	}
	p.begun = false
	p.WriteString(text + "\n")
}

// entry is a term with what it means.
func (p *roff) entry(term, text string) {
	fmt.Fprintf(p, ".TP\n%s\n%s\n", term, strings.TrimSpace(text))
	p.begun = false
}

// verbatim writes lines as they are, further in.
func (p *roff) verbatim(lines []string) {
	if p.begun {
		p.WriteString(".RS 4\n.EX\n")
	} else {
		p.WriteString(".PP\n.RS 4\n.EX\n")
	}
	for _, l := range lines {
		p.WriteString(escape(l) + "\n")
	}
	p.WriteString(".EE\n.RE\n")
	p.begun = false
}

func bold(s string) string { return `\fB` + escape(s) + `\fR` }
