package config

import (
	"iter"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// The YAML library makes some kilobytes of tokens and nodes of each peer, and they all live until the last is read. So a long list of
// peers is cut out of the document and parsed a part at a time: ten thousand peers then take the memory of partEntries.
//
// Cut is only where it is certain that nothing crosses a line: each peer begins on a line of its own, and in the whole file no quotes or
// brackets are open at the end of a line, there is no block text (| or >) and no tab. Every other file is parsed as one.

const (
	partEntries = 64      // entries of a mapping that are parsed at once
	maxPiece    = 1 << 20 // bytes of text that are parsed at once
)

// A cutting is what was cut out of a document: the entries of a block mapping, all but the first.
type cutting struct {
	lines  []string // of the file
	starts []int    // of each entry, index into lines
	end    int      // behind the last entry
}

// parts gives its text, some entries at a time, with the number of lines in front of it.
func (c *cutting) parts(entries int) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for i := 0; i < len(c.starts); i += entries {
			end := c.end
			if next := i + entries; next < len(c.starts) {
				end = c.starts[next]
			}
			if !yield(c.starts[i], strings.Join(c.lines[c.starts[i]:end], "\n")+"\n") {
				return
			}
		}
	}
}

// cutOut takes the long mappings named peers out of a document, where that can be done. It returns what is left, in which every
// line has its place, and what was cut out by the line, from 1, of the entry that was left in front of it.
func cutOut(text string, entries int) (rest string, cuts map[int]*cutting) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	cuts = make(map[int]*cutting)
	left := lines
	for i := 0; i < len(lines); i++ {
		if !standsAlone(lines[i]) {
			return text, nil
		}
		key := strings.TrimLeft(lines[i], " ")
		if tail, ok := strings.CutPrefix(key, "peers:"); !ok || !blank(tail) {
			continue
		}
		c := cutBelow(lines, i, len(lines[i])-len(key))
		if len(c.starts) <= entries {
			continue
		}
		if len(cuts) == 0 {
			left = append([]string(nil), lines...)
		}
		cuts[c.starts[0]+1] = c
		c.starts = c.starts[1:]
		clear(left[c.starts[0]:c.end])
	}
	if len(cuts) == 0 {
		return text, nil
	}
	return strings.Join(left, "\n") + "\n", cuts
}

// cutBelow finds the entries of the block mapping below a key; there are none where their indentation is not regular.
func cutBelow(lines []string, key, indent int) *cutting {
	c := &cutting{lines: lines, end: key + 1}
	inner := -1
	for i := key + 1; i < len(lines); i++ {
		if blank(lines[i]) {
			continue
		}
		depth := len(lines[i]) - len(strings.TrimLeft(lines[i], " "))
		switch {
		case depth <= indent:
			return c
		case inner < 0:
			inner = depth
		case depth < inner:
			return &cutting{}
		}
		if depth == inner {
			c.starts = append(c.starts, i)
		}
		c.end = i + 1
	}
	return c
}

// blank reports whether there is nothing on a line but a comment.
func blank(line string) bool {
	line = strings.TrimLeft(line, " ")
	return line == "" || line[0] == '#'
}

// standsAlone reports whether a line certainly leaves nothing open at its end, for a reader who does not know what came before it but that
// this left nothing open either. It says no to what may be fine, such as an apostrophe within a word.
func standsAlone(line string) bool {
	depth, quote, closed := 0, byte(0), false
	last, lead := byte(0), true // the last character that is no space; only spaces and dashes so far
scan:
	for i := 0; i < len(line); i++ {
		c := line[i]
		spaced := i == 0 || line[i-1] == ' '
		switch {
		case c == '\t':
			return false
		case quote == '"' && c == '\\':
			i++
			continue
		case quote != 0:
			if c == quote {
				quote, closed = 0, true
			}
			continue
		case c == ' ':
			continue
		case c == '#' && spaced:
			line = line[:i]
			break scan
		case closed && c == '\'' && line[i-1] == c: // an apostrophe within quotes
			quote, closed = c, false
			continue
		case closed && !strings.ContainsRune(",:]}", rune(c)):
			return false
		}
		closed = false
		switch c {
		case '"', '\'':
			begins := lead || strings.ContainsRune(",[{", rune(last)) || last == ':' && spaced
			if !begins {
				return false
			}
			quote = c
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		if depth < 0 {
			return false
		}
		lead = lead && c == '-'
		last = c
	}
	if quote != 0 || depth != 0 {
		return false
	}
	end := strings.TrimRight(line, " +-0123456789")
	return !strings.HasSuffix(end, "|") && !strings.HasSuffix(end, ">")
}

// longMapping gives the entries of a mapping like [report.mapping], but one after the other, those cut out of the document as well. What
// an entry's node refers to is only good until the next.
func (r *report) longMapping(v value) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		seen := make(map[string]int)
		entries, ok := r.mappingAfter(v, seen)
		if !ok {
			return
		}
		for _, e := range entries {
			if !yield(e) {
				return
			}
		}
		c := r.cuts[v.pos.Line]
		if _, block := v.node.(*ast.MappingNode); c == nil || !block {
			return
		}
		delete(r.cuts, v.pos.Line)
		defer func() { r.above = 0 }()
		for above, text := range c.parts(r.entries) {
			r.above = above
			n := r.document(text)
			if n == nil {
				return
			}
			entries, ok := r.mappingAfter(value{node: n, pos: r.nodePos(n), of: v.of}, seen)
			if !ok {
				return
			}
			for _, e := range entries {
				if !yield(e) {
					return
				}
			}
		}
	}
}
