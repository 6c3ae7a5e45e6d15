package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// What the YAML library is given has bounds: its parser recurses once per nesting and once per neighbour in a mapping,
// and takes time in their square. The lexer does neither, so its tokens are measured before the parser sees them.
const (
	maxTokens  = 300_000
	maxSibling = MaxPeers + 1000 // keys of one mapping
	maxKey     = 256             // bytes of a mapping's key
	maxScalar  = 8192            // bytes of any other scalar
)

// yamlDocument parses text into the root node of its only document. It reports what is wrong and returns nil where
// nothing can be read from the file; an empty file gives nil, too.
func (r *report) yamlDocument(text string) ast.Node {
	if !r.printable(text) {
		return nil
	}
	if r.entries > 0 {
		text, r.cuts = cutOut(text, r.entries)
	}
	return r.document(text)
}

// document is yamlDocument for text that is printable.
func (r *report) document(text string) ast.Node {
	tokens, ok := r.tokens(text)
	if !ok {
		return nil
	}
	file, err := parseTokens(tokens)
	if err != nil {
		r.syntax(err)
		return nil
	}
	var root ast.Node
	for _, doc := range file.Docs {
		switch body := doc.Body.(type) {
		case nil, *ast.CommentGroupNode:
		default:
			if root != nil {
				r.fail(r.nodePos(body), "use one file per instance", "the file holds a second YAML document")
				return root
			}
			root = body
		}
	}
	return root
}

// printable refuses what no configuration file holds, before any parser trips over it.
func (r *report) printable(text string) bool {
	line, column := 1, 1
	at := func() Position { return Position{r.src.path, line, column} }
	for i, c := range text {
		switch {
		case c == '\n':
			line, column = line+1, 1
			continue
		case c == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD"):
			r.fail(at(), "save the file as UTF-8", "the file is not valid UTF-8")
			return false
		case c != '\t' && unicode.IsControl(c), c == '\uFEFF', c == '\u2028', c == '\u2029':
			r.fail(at(), "remove it", "the file holds the control character %U", c)
			return false
		}
		column++
	}
	return true
}

// tokens runs the lexer and measures what came out.
func (r *report) tokens(text string) (tokens token.Tokens, ok bool) {
	defer func() {
		if recover() != nil {
			r.fail(Position{r.src.path, r.above + 1, 1}, "", "this is not valid YAML")
			tokens, ok = nil, false
		}
	}()
	if len(text) > maxPiece {
		r.fail(Position{r.src.path, r.above + 1, 1}, "begin each peer on a line of its own and close its quotes and brackets on the same, or split it into several instances",
			"the file is larger than %d bytes without its peers", maxPiece)
		return nil, false
	}
	tokens = lexer.Tokenize(text)
	if len(tokens) > maxTokens {
		r.fail(r.tokenPos(tokens[maxTokens]), "split it into several instances", "the file has too many parts")
		return nil, false
	}
	type level struct{ column, keys int }
	var blocks []level // open block mappings and sequences, from the outermost
	flow := 0          // open brackets
	before := len(r.errs)
	for i, tk := range tokens {
		limit := maxScalar
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow = max(0, flow-1)
		case token.AnchorType, token.AliasType:
			r.fail(r.tokenPos(tk), "write the value out where it is needed", "YAML anchors and aliases are not accepted")
		case token.TagType:
			r.fail(r.tokenPos(tk), "remove the tag", "YAML tags are not accepted")
		case token.MergeKeyType:
			r.fail(r.tokenPos(tk), "write the keys out where they are needed", "YAML merge keys are not accepted")
		case token.DirectiveType:
			r.fail(r.tokenPos(tk), "remove the line", "YAML directives are not accepted")
		case token.MappingKeyType:
			r.fail(r.tokenPos(tk), "write key: value", "YAML's ? keys are not accepted")
		case token.CommentType:
			continue
		}
		if i+1 < len(tokens) && tokens[i+1].Type == token.MappingValueType {
			limit = maxKey
		}
		if len(tk.Value) > limit {
			r.fail(r.tokenPos(tk), "", "this is longer than %d bytes", limit)
			return nil, false
		}
		var opens *token.Token
		switch {
		case tk.Type == token.SequenceEntryType:
			opens = tk
		case tk.Type == token.MappingValueType && i > 0:
			opens = tokens[i-1]
		}
		if opens != nil && flow == 0 {
			column := opens.Position.Column
			for len(blocks) > 0 && blocks[len(blocks)-1].column > column {
				blocks = blocks[:len(blocks)-1]
			}
			if len(blocks) == 0 || blocks[len(blocks)-1].column < column {
				blocks = append(blocks, level{column: column})
			}
			if tk.Type == token.MappingValueType {
				if blocks[len(blocks)-1].keys++; blocks[len(blocks)-1].keys > maxSibling {
					r.fail(r.tokenPos(opens), "split it into several instances", "this mapping has more than %d keys", maxSibling)
					return nil, false
				}
			}
		}
		if flow+len(blocks) > MaxDepth {
			r.fail(r.tokenPos(tk), "", "this is nested deeper than %d levels", MaxDepth)
			return nil, false
		}
		if len(r.errs) > 2*MaxErrors {
			return nil, false
		}
	}
	// The parser copes with anchors, tags and the like, but without them it has far fewer ways to go wrong.
	return tokens, len(r.errs) == before
}

// parseTokens runs the library's parser and turns its panics into errors.
func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			file, err = nil, errors.New("this is not valid YAML")
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// syntax reports an error of the library, which knows its token.
func (r *report) syntax(err error) {
	pos := Position{r.src.path, r.above + 1, 1}
	message := "this is not valid YAML"
	var at interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &at) {
		pos = r.tokenPos(at.GetToken())
		message += ": " + hideKeys(at.GetMessage())
	}
	message = strings.ReplaceAll(message, "\t", `\t`)
	hint := ""
	for _, h := range syntaxHints {
		if strings.Contains(message, h.part) {
			hint = h.advice
			break
		}
	}
	r.failWith(pos, &problem{message, hint}, nil)
}

// syntaxHints says what to do about the library's more frequent messages, found by a part of them.
var syntaxHints = []struct{ part, advice string }{
	{`'\t'`, "indent with spaces"},
	{"tab character", "indent with spaces"},
	{"mapping value is not allowed", "indent keys of one mapping alike (here or in the next line), and put text with a colon in quotes"},
	{"value is not allowed in this", "indent keys of one mapping alike (here or in the line before)"},
	{"non-map value is specified", "write key: value, and indent keys of one mapping alike"},
	{"unexpected key name", "write key: value on one line"},
	{"end character of double-quoted", `close the text with "`},
	{"end character of single-quoted", "close the text with '"},
	{"end token ']' not found", "close the list with ]"},
	{"end token '}'", "close the mapping with }"},
	{"',' or ']' must be specified", "close the list with ], separate its elements with commas, and put text with brackets in quotes"},
	{"',' or '}' must be specified", "close the mapping with }, and separate its entries with commas"},
	{"is a reserved character", "put the text in quotes"},
	{"sequence entries are not allowed", "put a list's first - on a line of its own"},
	{"invalid key for this map", "write key: value, and put text with brackets in quotes"},
	{"unknown escape character", `write a backslash within "..." twice, or use '...'`},
	{"could not find flow map content", "write {key: value, ...}"},
}

// tokenPos gives a token's place. The library counts columns in characters and may name a line behind the end of the
// file, which [source.errorAt] mends.
func (r *report) tokenPos(tk *token.Token) Position {
	if tk == nil || tk.Position == nil {
		return Position{r.src.path, r.above + 1, 1}
	}
	return Position{File: r.src.path, Line: r.above + max(1, tk.Position.Line), Column: max(1, tk.Position.Column)}
}

// nodePos gives the place of a node's first character.
func (r *report) nodePos(n ast.Node) Position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return r.tokenPos(m.Values[0].Key.GetToken())
	}
	return r.tokenPos(n.GetToken())
}

// A value is a node with the place to report it at.
type value struct {
	node ast.Node
	pos  Position
	of   string // what it is a value of, for messages: `"listen"`
}

// An entry is one key of a mapping and its value.
type entry struct {
	key string
	pos Position // of the key
	value
}

// describe names what stands in the place of something else.
func describe(n ast.Node) string {
	switch n := n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return n.GetToken().Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		if s := n.GetToken().Value; len(s) <= 24 {
			return "the number " + s
		}
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	}
	return "something else"
}

// spell is describe with a text's beginning, for values that are no secrets.
func spell(n ast.Node) string {
	if s, ok := n.(*ast.StringNode); ok {
		return "the text " + quote(s.Value)
	}
	return describe(n)
}

// mapping gives the entries of a mapping in file order, each key once, having reported what is wrong.
func (r *report) mapping(v value) (entries []entry, ok bool) {
	return r.mappingAfter(v, make(map[string]int))
}

// mappingAfter is mapping where some keys were given before: lines has the line of each, and is added to.
func (r *report) mappingAfter(v value, lines map[string]int) (entries []entry, ok bool) {
	m, ok := v.node.(*ast.MappingNode)
	if !ok {
		hint := "write key: value lines below it, indented"
		if _, null := v.node.(*ast.NullNode); null {
			hint = "write key: value lines below it, indented, or leave it out"
		}
		r.fail(v.pos, hint, "%s must be a mapping, but is %s", v.of, describe(v.node))
		return nil, false
	}
	for _, kv := range m.Values {
		tk := kv.Key.GetToken()
		pos := r.tokenPos(tk)
		key := tk.Value
		if first, twice := lines[key]; twice {
			r.fail(pos, "remove one of the two", "the key %s is given twice (first in line %d)", quote(key), first)
			continue
		}
		lines[key] = pos.Line
		e := entry{key: key, pos: pos, value: value{node: kv.Value, pos: r.nodePos(kv.Value), of: quote(key)}}
		if _, null := kv.Value.(*ast.NullNode); null {
			e.value.pos = pos // what is not there has no place
		}
		entries = append(entries, e)
	}
	return entries, true
}

// A field is a key that a mapping may hold and what to do with its value.
type field struct {
	name string
	read func(entry)
}

// fields reads a mapping with fixed keys.
func (r *report) fields(v value, where string, known ...field) bool {
	entries, ok := r.mapping(v)
	if !ok {
		return false
	}
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
	for _, e := range entries {
		switch i := slices.Index(names, e.key); {
		case i >= 0:
			known[i].read(e)
		default:
			hint := "known keys: " + strings.Join(names, ", ")
			if s := suggest(e.key, names); s != "" {
				hint = fmt.Sprintf("did you mean %q?", s)
			}
			r.fail(e.pos, hint, "unknown key %s in %s", quote(e.key), where)
		}
	}
	return true
}

// list gives the elements of a list, bounded by most.
func (r *report) list(v value, example string, most int) []value {
	s, ok := v.node.(*ast.SequenceNode)
	if !ok {
		r.fail(v.pos, "write a list, such as "+example, "%s must be a list, but is %s", v.of, describe(v.node))
		return nil
	}
	var out []value
	for i, n := range s.Values {
		pos := r.nodePos(n)
		if _, null := n.(*ast.NullNode); null {
			pos = v.pos
		}
		if i == most {
			r.fail(pos, "", "%s has more than %d elements", v.of, most)
			break
		}
		out = append(out, value{node: n, pos: pos, of: "an element of " + v.of})
	}
	return out
}

// text gives a string.
func (r *report) text(v value) (string, bool) {
	switch n := v.node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		if n.Value != nil {
			return strings.TrimSuffix(n.Value.Value, "\n"), true
		}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		r.fail(v.pos, `put it in quotes: "`+strings.Trim(quote(n.GetToken().Value), `"`)+`"`,
			"%s must be text, but is %s", v.of, describe(n))
		return "", false
	}
	r.fail(v.pos, "", "%s must be text, but is %s", v.of, describe(v.node))
	return "", false
}

// number gives the text of a number, or of an unquoted word that may stand in its place.
func (r *report) number(v value, words ...string) (string, bool) {
	hint := ""
	switch n := v.node.(type) {
	case *ast.IntegerNode:
		return n.GetToken().Value, true
	case *ast.StringNode:
		if slices.Contains(words, n.Value) {
			return n.Value, true
		}
		if _, ok := number32(n.Value); ok && n.GetToken().Type != token.StringType {
			hint = "remove the quotes"
		}
	case *ast.BoolNode:
		if n.GetToken().Value == "false" && slices.Contains(words, "off") {
			hint = "write off"
		}
	}
	expected := "a whole number"
	if n := len(words); n > 0 {
		expected = strings.Join(append([]string{expected}, words[:n-1]...), ", ") + " or " + words[n-1]
	}
	r.fail(v.pos, hint, "%s must be %s, but is %s", v.of, expected, spell(v.node))
	return "", false
}

// truth gives a boolean.
func (r *report) truth(v value) (bool, bool) {
	if b, ok := v.node.(*ast.BoolNode); ok {
		return b.Value, true
	}
	hint := ""
	if s, ok := v.node.(*ast.StringNode); ok {
		switch strings.ToLower(s.Value) {
		case "true", "false":
			hint = "remove the quotes, and write it in small letters"
		case "yes", "on":
			hint = "write true"
		case "no", "off":
			hint = "write false"
		}
	}
	r.fail(v.pos, hint, "%s must be true or false, but is %s", v.of, spell(v.node))
	return false, false
}

// numberOrText gives the text of either, as for a port or a range of them, or a duration whose unit is missing.
func (r *report) numberOrText(v value) (string, bool) {
	if n, ok := v.node.(*ast.IntegerNode); ok {
		return n.GetToken().Value, true
	}
	return r.text(v)
}
