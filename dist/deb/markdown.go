package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// filePage is culvert.yaml(5), of the documents whose tables config's tests hold against what the parser reads by.
func filePage(root string, rel release) ([]byte, error) {
	p := newPage("culvert.yaml", "5", "culvert's configuration", rel)
	p.section("Name")
	p.paragraph(escape("culvert.yaml") + ` \- ` + escape("configuration of tunnels and of the network around them"))
	for i, name := range []string{"configuration.md", "setup.md", "server.md"} {
		text, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			return nil, err
		}
		if name == "server.md" { // the rest of it is a walk through
			_, after, ok := bytes.Cut(text, []byte("\n## Reference\n"))
			if !ok {
				return nil, fmt.Errorf("docs/%s has no section Reference", name)
			}
			text = append([]byte("# Servers and clients\n"), after...)
		}
		if i == 0 {
			text = bytes.Replace(text, []byte("# Configuration files"), []byte("# Description"), 1)
		}
		p.markdown(string(text))
	}
	p.section("See also")
	p.paragraph(`\fBculvert\fR(1); /usr/share/doc/culvert/docs has what is named docs/ here`)
	return []byte(p.String()), nil
}

var (
	span = regexp.MustCompile("`[^`]+`|\\*\\*[^*]+\\*\\*|\\[[^]]+\\]\\([^)]+\\)")
	item = regexp.MustCompile(`^(-|\d+\.) +(.*)$`)
	// A cell ends at a bar that has no backslash before it.
	bar     = regexp.MustCompile(`((?:[^|\\]|\\.)*)\|`)
	ruler   = regexp.MustCompile(`^\|[-| :]+\|$`)
	comment = regexp.MustCompile(`(?s)<!--.*?-->\n?`)
)

// inline is a line of Markdown with its emphasis and code.
func inline(s string) string {
	var out strings.Builder
	for s != "" {
		at := span.FindStringIndex(s)
		if at == nil {
			break
		}
		if at[0] > 0 {
			out.WriteString(within(s[:at[0]]))
		}
		switch found := s[at[0]:at[1]]; found[0] {
		case '`':
			out.WriteString(`\fB` + within(found[1:len(found)-1]) + `\fR`)
		case '*':
			out.WriteString(`\fI` + inline(found[2:len(found)-2]) + `\fR`)
		default:
			text, _, _ := strings.Cut(found[1:], "](")
			out.WriteString(within(text))
		}
		s = s[at[1]:]
	}
	out.WriteString(within(s))
	return begin(out.String())
}

// within is escape for what may not begin a line.
func within(s string) string { return strings.TrimPrefix(escape(s), `\&`) }

// begin makes a line that is no macro.
func begin(s string) string {
	if strings.HasPrefix(s, ".") {
		return `\&` + s
	}
	return s
}

// markdown writes a document: headings, paragraphs, lists, code that is fenced or indented, tables.
func (p *roff) markdown(text string) {
	lines := strings.Split(comment.ReplaceAllString(text, ""), "\n")
	var filled []string
	inItem := false
	flush := func() {
		if len(filled) > 0 {
			text := inline(strings.Join(filled, " "))
			if inItem {
				p.WriteString(text + "\n")
			} else {
				p.paragraph(text)
			}
		}
		filled = nil
	}
	end := func() {
		flush()
		inItem = false
	}
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		words := strings.TrimSpace(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case strings.HasPrefix(line, "```"):
			end()
			from := i + 1
			for i++; i < len(lines) && !strings.HasPrefix(lines[i], "```"); i++ {
			}
			p.verbatim(lines[from:min(i, len(lines))])
		case words == "":
			flush()
		case strings.HasPrefix(line, "# "):
			end()
			p.section(line[2:])
		case strings.HasPrefix(line, "## "), strings.HasPrefix(line, "### "):
			end()
			p.subsection(strings.TrimLeft(line, "# "))
		case strings.HasPrefix(line, "|"):
			end()
			from := i
			for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|") {
				i++
			}
			p.table(lines[from : i+1])
		case indent >= 4 && len(filled) == 0: // code, also in a list's item
			from := i
			for i+1 < len(lines) && (strings.TrimSpace(lines[i+1]) == "" || strings.HasPrefix(lines[i+1], "    ")) {
				i++
			}
			for i > from && strings.TrimSpace(lines[i]) == "" {
				i--
			}
			code := make([]string, 0, i+1-from)
			for _, l := range lines[from : i+1] {
				code = append(code, strings.TrimPrefix(l, strings.Repeat(" ", indent)))
			}
			if inItem {
				p.WriteString(".RS\n")
				p.verbatim(code)
				p.WriteString(".RE\n.IP\n")
			} else {
				p.verbatim(code)
			}
		case item.MatchString(line):
			flush()
			found := item.FindStringSubmatch(line)
			mark := `\(bu`
			if found[1] != "-" {
				mark = found[1]
			}
			fmt.Fprintf(p, ".IP %s 4\n", mark)
			p.begun = false
			inItem = true
			filled = append(filled, found[2])
		default:
			if inItem && indent == 0 && len(filled) == 0 {
				inItem = false
			}
			filled = append(filled, words)
		}
	}
	flush()
}

// table writes rows as terms with what the other columns say, under the columns' names where there are more than two.
func (p *roff) table(lines []string) {
	var rows [][]string
	for _, l := range lines {
		if ruler.MatchString(strings.TrimSpace(l)) {
			continue
		}
		var cells []string
		for _, m := range bar.FindAllStringSubmatch(strings.TrimPrefix(strings.TrimSpace(l), "|"), -1) {
			cells = append(cells, strings.ReplaceAll(strings.TrimSpace(m[1]), `\|`, "|"))
		}
		rows = append(rows, cells)
	}
	if len(rows) == 0 {
		return
	}
	head := rows[0]
	for _, cells := range rows[1:] {
		if len(cells) == 0 {
			continue
		}
		var about strings.Builder
		for i, c := range cells[1:] {
			if c == "" {
				continue
			}
			if i > 0 {
				about.WriteString(".br\n")
				if i+1 < len(head) && head[i+1] != "" {
					about.WriteString(begin(within(upper(head[i+1]))) + ": ")
				}
			}
			about.WriteString(inline(c) + "\n")
		}
		if about.Len() == 0 {
			about.WriteString("\\&\n")
		}
		term := inline(cells[0])
		if term == "" {
			term = `\&`
		}
		p.entry(term, about.String())
	}
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
