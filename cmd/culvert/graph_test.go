package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"culvert/internal/golden"
	"culvert/setup/apply"
	"culvert/setup/graph"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// docs/graph-example.svg is what docs/graph.md shows.
func TestGraphOfTheDocumentation(t *testing.T) {
	file, err := loadConfig("../../examples/dhcp-namespace.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := graph.New(declaredSource(file)).SVG(&got); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "../../docs/graph-example.svg", got.String())
}

// Every example that needs no key is drawn, with all its devices.
func TestGraphOfEveryExample(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no examples", err)
	}
	drawn := 0
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("private_key_file")) {
			continue
		}
		file, err := loadConfig(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		g := graph.New(declaredSource(file))
		names := make(map[model.Ref]bool)
		for _, n := range g.Nodes {
			names[n.Link] = true
		}
		for i := range file.Setup.Links {
			l := &file.Setup.Links[i]
			if !names[model.NewRef(l.Netns, l.DeviceName())] {
				t.Errorf("%s: %s is not drawn", path, l.Key)
			}
		}
		drawn++
	}
	if drawn < 10 {
		t.Errorf("only %d examples were drawn", drawn)
	}
}

func TestGraphReadsTheDeclaredNamespaces(t *testing.T) {
	file, err := loadConfig("../../examples/dhcp-namespace.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var scope model.Scope
	source, err := withSystem(t.Context(), declaredSource(file), func(_ context.Context, s model.Scope) (*model.System, error) {
		scope = s
		return &model.System{Objects: map[model.ID]*model.Object{}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(scope.Netns, "") || !slices.Contains(scope.Netns, "qdhcp-ba48a3fc") || len(scope.Netns) != 2 || len(scope.Processes) == 0 {
		t.Errorf("scope %+v", scope)
	}
	g := graph.New(source)
	if !g.Compared || len(g.Nodes) == 0 {
		t.Fatalf("compared %v, %d nodes", g.Compared, len(g.Nodes))
	}
	for _, n := range g.Nodes {
		if n.Status != graph.Missing {
			t.Errorf("%s is %q where there is nothing", n.Name, n.Status)
		}
	}
}

func TestGraphOfTheSystemReadsAllNamespaces(t *testing.T) {
	var scopes []model.Scope
	source, err := withSystem(t.Context(), graph.Source{}, func(_ context.Context, s model.Scope) (*model.System, error) {
		scopes = append(scopes, s)
		return &model.System{Objects: map[model.ID]*model.Object{
			model.NetnsID("a"):   {ID: model.NetnsID("a")},
			model.LinkID("eth0"): {ID: model.LinkID("eth0")},
		}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(scopes) != 2 || !slices.Equal(scopes[1].Netns, []string{"", "a"}) {
		t.Errorf("scopes %+v", scopes)
	}
	if g := graph.New(source); g.Compared || len(g.Nodes) != 1 || len(g.Spaces) != 2 {
		t.Errorf("%+v", g)
	}
	wrong := errors.New("no")
	if _, err := withSystem(t.Context(), graph.Source{}, func(context.Context, model.Scope) (*model.System, error) { return nil, wrong }); !errors.Is(err, wrong) {
		t.Errorf("error %v", err)
	}
}

// fixedSystem is a kernel that can only be read.
type fixedSystem struct{ system *model.System }

func (f fixedSystem) Read(context.Context, model.Scope) (*model.System, error) { return f.system, nil }
func (fixedSystem) Do(context.Context, *plan.Step) (apply.Done, error) {
	return apply.Done{}, errors.ErrUnsupported
}

// The command with the running system in the place of a test's.
func TestGraphLive(t *testing.T) {
	there := fixedSystem{&model.System{Objects: map[model.ID]*model.Object{
		model.LinkID("br0"): {ID: model.LinkID("br0"), Group: model.Group, Fields: model.Fields{"type": "bridge", "up": "no"}},
	}}}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"graph", "../../examples/dhcp-namespace.yaml", "--live"}, []string{">missing<", ">differs<", "up no, declared yes", "and the running system"}},
		{[]string{"graph", "--live"}, []string{">br0<", "the running system"}},
	} {
		var stdout, stderr bytes.Buffer
		p := newProgram(nil, &stdout, &stderr)
		p.machineOf = func(string) machine { return machine{Kernel: there} }
		if code := p.run(append([]string{"culvert"}, c.args...)); code != 0 {
			t.Fatalf("%v: exit code %d: %s", c.args, code, stderr.String())
		}
		for _, w := range c.want {
			if !strings.Contains(stdout.String(), w) {
				t.Errorf("%v: %q is not in the picture", c.args, w)
			}
		}
	}
}
