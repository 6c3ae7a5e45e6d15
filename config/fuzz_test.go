package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"culvert/setup/spec"
)

// checkSetup checks that what was read of the network is valid, and that each part of it knows its place in the file.
func checkSetup(t *testing.T, text []byte, f *File) {
	t.Helper()
	if !f.DeclaresSetup() {
		return
	}
	if errs := f.Setup.Validate(); len(errs) > 0 {
		t.Fatalf("what was accepted is not valid: %v", errs)
	}
	lines := newSource("", text).lines
	inside := func(path string, o spec.Origin) {
		if o.Line < 1 || o.Line > len(lines) || o.Column < 1 || o.Column > utf8.RuneCountInString(lines[o.Line-1])+1 {
			t.Fatalf("%s is said at %v, outside of the file", path, o)
		}
	}
	parts := 0
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Struct:
			if p, ok := v.Interface().(spec.Place); ok {
				parts++
				if p.Path == "" {
					t.Fatalf("a part of %v has no path", p.Origin)
				}
				inside(p.Path, p.Origin)
				for field, o := range p.Fields {
					inside(p.Key(field), o)
				}
				return
			}
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					walk(v.Field(i))
				}
			}
		}
	}
	walk(reflect.ValueOf(f.Setup))
	if parts < len(f.Setup.Links) {
		t.Fatalf("%d places for %d links", parts, len(f.Setup.Links))
	}
}

// fakeSecret stands for any key file: its key is made from its name.
func fakeSecret(path string) ([]byte, *problem, error) {
	k := sha256.Sum256([]byte(path))
	return []byte(base64.StdEncoding.EncodeToString(k[:]) + "\n"), nil, nil
}

// bare copies a file without what a rewritten one cannot have: positions, source, path.
func bare(f *File) *File {
	out := &File{Instance: f.Instance}
	for _, t := range f.Tunnels {
		t.Pos, t.ListenPos, t.PrivateKeyPos, t.MTUPos, t.FwMarkPos, t.TablePos, t.SaveConfigPos =
			Position{}, Position{}, Position{}, Position{}, Position{}, Position{}, Position{}
		t.WirePos, t.PostQuantumPos = Position{}, Position{}
		t.ModePos, t.QueuesPos, t.MACPos = Position{}, Position{}, Position{}
		t.DNS.Pos, t.TCP.Pos = Position{}, Position{}
		t.FullTunnelPos, t.KillSwitchPos, t.Mark, t.Except = Position{}, Position{}, 0, barePrefixes(t.Except)
		t.Addresses = barePrefixes(t.Addresses)
		t.Hooks = Hooks{bareHooks(t.Hooks.PreUp), bareHooks(t.Hooks.PostUp), bareHooks(t.Hooks.PreDown), bareHooks(t.Hooks.PostDown)}
		var peers []Peer
		for _, p := range t.Peers {
			p.Pos, p.PublicKeyPos, p.PresharedKeyPos, p.KeepalivePos = Position{}, Position{}, Position{}, Position{}
			p.WirePos, p.PostQuantumPos, p.TCPPos = Position{}, Position{}, Position{}
			for k := range p.TCP {
				p.TCP[k].Pos = Position{}
			}
			p.AllowedIPs = barePrefixes(p.AllowedIPs)
			p.MaxMACsPos, p.VLANs.Pos = Position{}, Position{}
			var macs []Station
			for _, m := range p.MACs {
				macs = append(macs, Station{MAC: m.MAC})
			}
			p.MACs = macs
			var ends []Endpoint
			for _, e := range p.Endpoints {
				ends = append(ends, Endpoint{Host: e.Host, Port: e.Port})
			}
			p.Endpoints = ends
			p.Access = bareAccess(p.Access)
			peers = append(peers, p)
		}
		t.Peers = peers
		out.Tunnels = append(out.Tunnels, t)
	}
	return out
}

func bareAccess(a *Access) *Access {
	if a == nil {
		return nil
	}
	out := *a
	out.Place, out.Expires, out.Rules, out.Schedule = spec.Place{}, a.Expires.UTC(), nil, append([]AccessWindow(nil), a.Schedule...)
	for i := range out.Schedule {
		out.Schedule[i].Place = spec.Place{}
	}
	match := func(m *AccessMatch) *AccessMatch {
		if m == nil {
			return nil
		}
		c := *m
		c.Place = spec.Place{}
		return &c
	}
	for _, r := range a.Rules {
		out.Rules = append(out.Rules, AccessRule{match(r.Allow), match(r.Deny)})
	}
	if reflect.DeepEqual(out, Access{}) { // which is written as its default
		out.Default = "allow"
	}
	return &out
}

func barePrefixes(ps []Prefix) (out []Prefix) {
	for _, p := range ps {
		out = append(out, Prefix{Prefix: p.Prefix})
	}
	return out
}

func bareHooks(hs []Hook) (out []Hook) {
	for _, h := range hs {
		out = append(out, Hook{Command: h.Command})
	}
	return out
}

// asWGQuick reduces a bare tunnel to what wg-quick's format carries.
func asWGQuick(f *File, name string) *File {
	out := bare(f)
	out.Instance, out.Tunnels = name, out.Tunnels[:1]
	t := &out.Tunnels[0]
	t.Name, t.PrivateKeyFile, t.Wire, t.Queues = name, "", WireWireGuard, 0
	t.FullTunnel, t.Except, t.KillSwitch = Families{}, nil, false
	search, _ := t.DNS.wgQuick()
	t.DNS = DNS{Servers: t.DNS.Servers, Search: search}
	for i := range t.Peers {
		t.Peers[i].Name, t.Peers[i].PresharedKeyFile = "", ""
	}
	return out
}

// checkErrors holds what is true of every error: a place within the file, one line of source, a message.
func checkErrors(t *testing.T, text []byte, list []*Error) {
	t.Helper()
	lines := newSource("", text).lines
	for _, e := range list {
		if e.Pos.Line < 1 || e.Pos.Line > len(lines) {
			t.Fatalf("line %d is not in a file of %d lines: %v", e.Pos.Line, len(lines), e)
		}
		if n := utf8.RuneCountInString(lines[e.Pos.Line-1]); e.Pos.Column < 1 || e.Pos.Column > n+1 {
			t.Fatalf("column %d is not in a line of %d characters: %v", e.Pos.Column, n, e)
		}
		if e.Message == "" || strings.ContainsAny(e.Message+e.Hint, "\n\r\x00") || len(e.Error()) > 4096 {
			t.Fatalf("malformed error: %q", e.Error())
		}
	}
}

// checkPlaces checks that what was read stands where its position says.
func checkPlaces(t *testing.T, text []byte, f *File) {
	t.Helper()
	lines := newSource("", text).lines
	at := func(p Position) string {
		if p.Line < 1 || p.Line > len(lines) {
			t.Fatalf("line %d is not in a file of %d lines", p.Line, len(lines))
		}
		runes := []rune(lines[p.Line-1])
		if p.Column < 1 || p.Column > len(runes) {
			t.Fatalf("column %d is not in line %q", p.Column, lines[p.Line-1])
		}
		return strings.TrimLeft(string(runes[p.Column-1:]), `"'`)
	}
	for _, tunnel := range f.Tunnels {
		if s := at(tunnel.Pos); f.Format == FormatYAML && !strings.HasPrefix(s, tunnel.Name) && !strings.Contains(s, "\\") {
			t.Fatalf("%s should stand in %q", tunnel.Name, s)
		}
		wantAt := func(p Position, text string) {
			if p == (Position{}) {
				return
			}
			if s := at(p); !strings.HasPrefix(s, text) && !strings.ContainsAny(s, `\|>`) { // escaped, or a block's first line
				t.Fatalf("%s should stand in %q", text, s)
			}
		}
		wantAt(tunnel.WirePos, string(tunnel.Wire))
		wantAt(tunnel.PostQuantumPos, "required")
		wantAt(tunnel.ModePos, string(tunnel.Mode))
		for _, p := range tunnel.Peers {
			wantAt(p.WirePos, string(p.Wire))
			wantAt(p.PostQuantumPos, "required")
			at(p.Pos)
			at(p.PublicKeyPos)
			for _, e := range p.Endpoints {
				at(e.Pos)
			}
			for _, a := range p.AllowedIPs {
				at(a.Pos)
			}
			for _, m := range p.MACs {
				at(m.Pos)
			}
		}
		for _, a := range tunnel.Addresses {
			at(a.Pos)
		}
	}
}

func rewriteYAML(t *testing.T, f *File) {
	t.Helper()
	var out bytes.Buffer
	if err := WriteYAML(&out, f); err != nil {
		t.Fatal(err)
	}
	again, r := parseYAML(f.Path, out.Bytes(), fakeSecret)
	if errs, _ := r.finish(); len(errs) > 0 {
		t.Fatalf("what was written is refused: %v\n%s", errs, out.Bytes())
	}
	if a, b := bare(f), bare(again); !reflect.DeepEqual(a, b) {
		t.Fatalf("rewritten differently:\n%s\n%+v\n%+v", out.Bytes(), a, b)
	}
}

func rewriteWGQuick(t *testing.T, f *File) {
	t.Helper()
	var out bytes.Buffer
	warnings, err := WriteWGQuick(&out, &f.Tunnels[0])
	if err != nil {
		if f.Format == FormatYAML && (strings.Contains(err.Error(), "#") || wgQuickKnows(&f.Tunnels[0]) != nil) {
			return
		}
		t.Fatal(err)
	}
	again, r, secrets := parseWGQuick("wg0.conf", out.Bytes())
	if errs, _ := r.finish(); len(errs) > 0 {
		t.Fatalf("what was written is refused: %v\n%s", errs, out.Bytes())
	}
	if !secrets {
		t.Fatal("no secrets found in a file with a private key")
	}
	want := asWGQuick(f, "wg0")
	if len(warnings) > 0 {
		for i, p := range want.Tunnels[0].Peers {
			want.Tunnels[0].Peers[i].Endpoints = p.Endpoints[:min(1, len(p.Endpoints))]
		}
	}
	if got := asWGQuick(again, "wg0"); !reflect.DeepEqual(want, got) {
		t.Fatalf("rewritten differently:\n%s\n%+v\n%+v", out.Bytes(), want, got)
	}
}

func addFiles(f *testing.F, pattern string) {
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds match %s: %v", pattern, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
}

// FuzzYAML: no panic; every error has its place in the file; what is accepted is written and read again as the same.
func FuzzYAML(f *testing.F) {
	addFiles(f, "testdata/errors/*.yaml")
	addFiles(f, "testdata/good/*.yaml")
	addFiles(f, "../examples/*.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 {
			return // the lexer's and parser's bounds have their own tests
		}
		file, r := parseYAML("fuzz.yaml", text, fakeSecret)
		errs, warnings := r.finish()
		checkErrors(t, text, errs)
		checkErrors(t, text, warnings)
		if len(errs) > 0 {
			return
		}
		checkPlaces(t, text, file)
		checkSetup(t, text, file)
		if file.declares {
			if WriteYAML(io.Discard, file) == nil {
				t.Fatal("a file is written without its network")
			}
			return
		}
		for i := range file.Tunnels {
			if file.Tunnels[i].serves() {
				if WriteYAML(io.Discard, file) == nil {
					t.Fatal("a file is written without its server")
				}
				return
			}
		}
		rewriteYAML(t, file)
		rewriteWGQuick(t, file)
	})
}

// FuzzWGQuick: the same for wg-quick's format, and through import to YAML.
func FuzzWGQuick(f *testing.F) {
	addFiles(f, "testdata/errors/*.conf")
	addFiles(f, "testdata/good/*.conf")
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 {
			return
		}
		file, r, _ := parseWGQuick("wg0.conf", text)
		errs, warnings := r.finish()
		checkErrors(t, text, errs)
		checkErrors(t, text, warnings)
		if len(errs) > 0 {
			return
		}
		checkPlaces(t, text, file)
		rewriteWGQuick(t, file)
		imported := ImportWGQuick(file, "")
		checkErrors(t, text, imported.Warnings)
		keys := map[string][]byte{}
		for _, s := range imported.Secrets {
			keys[s.Path] = s.Content
		}
		var out bytes.Buffer
		if err := WriteYAML(&out, imported.File); err != nil {
			t.Fatal(err)
		}
		again, r := parseYAML("wg0.yaml", out.Bytes(), func(path string) ([]byte, *problem, error) { return keys[path], nil, nil })
		if errs, _ := r.finish(); len(errs) > 0 {
			t.Fatalf("what was imported is refused: %v\n%s", errs, out.Bytes())
		}
		if a, b := bare(imported.File), bare(again); !reflect.DeepEqual(a, b) {
			t.Fatalf("imported differently:\n%s\n%+v\n%+v", out.Bytes(), a, b)
		}
	})
}
