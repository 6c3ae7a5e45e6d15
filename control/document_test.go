package control

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"culvert/crypto"
)

var writeDocs = flag.Bool("docs", false, "write the tables of docs/api.md anew")

const apiDocument = "../docs/api.md"

func readDocument(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(apiDocument)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// structs are the package's types that have fields, by name.
func structs(t *testing.T) map[string]*ast.StructType {
	t.Helper()
	all := make(map[string]*ast.StructType)
	files, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					all[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	return all
}

// typeWords says in JSON's terms what a type is, and which of the package's own types it leads to.
func typeWords(t *testing.T, e ast.Expr) (words, own string) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeWords(t, e.X)
	case *ast.ArrayType:
		words, own = typeWords(t, e.Elt)
		return "list of " + words, own
	case *ast.MapType:
		words, own = typeWords(t, e.Value)
		return "object of " + words, own
	case *ast.SelectorExpr:
		name := fmt.Sprintf("%s.%s", e.X, e.Sel)
		words, ok := map[string]string{"time.Time": "time", "crypto.PublicKey": "key", "netip.Addr": "address", "netip.Prefix": "network"}[name]
		if !ok {
			t.Errorf("no words for %s", name)
		}
		return words, ""
	case *ast.Ident:
		switch e.Name {
		case "bool":
			return "boolean", ""
		case "string", "Reason":
			return "string", ""
		case "float64":
			return "number", ""
		case "int", "uint16", "uint32", "uint64":
			return "integer", ""
		}
		return fmt.Sprintf("[%s](#%s)", e.Name, strings.ToLower(e.Name)), e.Name
	}
	t.Fatalf("a type of the kind %T", e)
	return "", ""
}

// fieldTable writes a type's fields as a table: name, type, meaning.
func fieldTable(t *testing.T, name string, s *ast.StructType, leads func(string)) string {
	var b strings.Builder
	b.WriteString("| field | type | meaning |\n|---|---|---|\n")
	for _, f := range s.Fields.List {
		tag, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			t.Fatal(err)
		}
		key, options, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		words, own := typeWords(t, f.Type)
		leads(own)
		if options != "" {
			words += ", or absent"
		}
		meaning := strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
		if meaning == "" {
			t.Errorf("%s.%s has no comment, which would be its description in %s", name, f.Names[0], apiDocument)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key, words, strings.ReplaceAll(meaning, "|", "\\|"))
	}
	return b.String()
}

// The tables of docs/api.md are made from the types, and leave none out that is part of a message.
func TestAPIDocument(t *testing.T) {
	types, wanted, done := structs(t), map[string]bool{"request": true, "response": true, "Event": true}, map[string]bool{}
	text := readDocument(t)
	block := regexp.MustCompile(`(?s)<!-- type: (\w+) -->\n.*?<!-- end -->`)
	out := block.ReplaceAllStringFunc(text, func(found string) string {
		name := block.FindStringSubmatch(found)[1]
		if types[name] == nil || done[name] {
			t.Errorf("%s is no type, or stands there twice", name)
			return found
		}
		done[name] = true
		return fmt.Sprintf("<!-- type: %s -->\n%s<!-- end -->", name, fieldTable(t, name, types[name], func(own string) {
			if own != "" {
				wanted[own] = true
			}
		}))
	})
	for name := range wanted {
		if !done[name] {
			t.Errorf("%s has no table of %s", apiDocument, name)
		}
		if heading := "\n### " + name + "\n"; name != "request" && name != "response" && !strings.Contains(out, heading) {
			t.Errorf("%s has no heading %q", apiDocument, heading)
		}
	}
	if out != text {
		if *writeDocs {
			if err := os.WriteFile(apiDocument, []byte(out), 0o644); err != nil {
				t.Fatal(err)
			}
		} else {
			t.Errorf("%s is not as the types are: go generate ./control", apiDocument)
		}
	}
	names := []string{OpHello}
	for _, o := range operations {
		names = append(names, o.name)
	}
	names = append(names, EventKinds...)
	for _, r := range []Reason{ReasonFailed, ReasonRefused, ReasonBusy, ReasonRequest, ReasonVersion, ReasonOperation, ReasonField} {
		names = append(names, string(r))
	}
	for _, name := range names {
		if !strings.Contains(text, "| `"+name+"` |") {
			t.Errorf("%s has no row for %q", apiDocument, name)
		}
	}
	for _, bound := range []string{
		fmt.Sprintf("%d bytes of a request", maxRequest), fmt.Sprintf("%d MiB of an answer", maxResponse>>20), fmt.Sprintf("%d clients", maxClients),
		fmt.Sprintf("%v for the request", requestTime), fmt.Sprintf("%v for the answer", answerTime), fmt.Sprintf("%d captures", maxCaptures),
		fmt.Sprintf("%d streams of events", maxEventStreams),
	} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), bound) {
			t.Errorf("%s does not say %q", apiDocument, bound)
		}
	}
}

// documented is the service that the examples of docs/api.md are of.
type documented struct{ everything }

func (s *documented) Reload(context.Context) ([]string, error) {
	return nil, &Error{Text: "/etc/culvert/site.yaml:7:5: unknown key \"adresses\" in a tunnel", Code: 78}
}

func (s *documented) Log(LogRequest) (*Log, error) { return &Log{Level: "debug"}, nil }

func (s *documented) Clients(r ClientsRequest) (*ClientsAnswer, error) {
	if r.Do == DoInvite {
		return &ClientsAnswer{Link: "culvert://join/...", Expires: time.Date(2026, 12, 2, 12, 0, 0, 0, time.UTC)}, nil
	}
	return &ClientsAnswer{}, nil
}

func (s *documented) Events(o EventOptions) (func(context.Context) ([]Event, error), func()) {
	key := crypto.PublicKey{0xc5, 0x32}
	all := []Event{
		{Time: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC), Event: EventPeerConnected, Instance: "site", Tunnel: "office", Peer: "branch", PublicKey: key,
			Endpoint: "192.0.2.7:51820"},
		{Time: time.Date(2026, 12, 1, 12, 9, 30, 0, time.UTC), Event: EventPeerLost, Instance: "site", Tunnel: "office", Peer: "branch", PublicKey: key,
			Endpoint: "192.0.2.7:51820", Why: "silent"},
	}
	return func(context.Context) ([]Event, error) { return all, io.EOF }, func() {}
}

// Each "→" of docs/api.md is sent as it is, and answered by the "←" below it, of which "…" stands for anything.
func TestAPIExamples(t *testing.T) {
	s := &documented{}
	s.instance = Instance{Name: "site", Kind: "up", PID: 412, Version: "1.4.0", File: "/etc/culvert/site.yaml", Tunnels: []Tunnel{{
		Interface: "office", Mode: "tun", Up: true, MTU: 1416, Workers: 1, Drops: map[string]uint64{},
		Peers: []Peer{{PublicKey: crypto.PublicKey{0xc5, 0x32}, Name: "branch", AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.30.0.0/16")}, Wire: "culvert"}},
	}}}
	s.down = func() error { return nil }
	s.stream = func(_ context.Context, w io.Writer) error { return nil }
	dir, l := listen(t, s)
	l.name = "site"
	examples := 0
	var c net.Conn
	var answers *bufio.Reader
	for line := range strings.Lines(readDocument(t)) {
		line = strings.TrimSpace(line)
		if request, ok := strings.CutPrefix(line, "→ "); ok {
			var err error
			if c, err = net.Dial("unix", SocketPath(dir, "wg0")); err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			answers = bufio.NewReader(c)
			io.WriteString(c, request+"\n")
			examples++
		}
		if want, ok := strings.CutPrefix(line, "← "); ok {
			got, err := answers.ReadString('\n')
			if err != nil {
				t.Fatalf("%v instead of %s", err, want)
			}
			parts := strings.Split(want, "…")
			for i := range parts {
				parts[i] = regexp.QuoteMeta(parts[i])
			}
			if !regexp.MustCompile("^" + strings.Join(parts, ".*") + "\n$").MatchString(got) {
				t.Errorf("the daemon answers\n%s, and the document says\n%s", got, want)
			}
		}
	}
	if examples < 8 {
		t.Errorf("%d examples", examples)
	}
	if !slices.IsSorted(operationsOf(s)) {
		t.Error("operations are not sorted")
	}
}
