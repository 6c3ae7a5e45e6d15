package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"culvert/config"
	"culvert/setup/graph"
	linuxkernel "culvert/setup/kernel"
	"culvert/setup/model"
)

// systemReader reads what devices there are in some namespaces.
type systemReader func(context.Context, model.Scope) (*model.System, error)

// systemReader reads the running system, with the services of an instance, or, where none is named, of all.
func (p *program) systemReader(instance string) systemReader {
	if instance != "" || p.machineOf != nil {
		return p.machine(instance).Read
	}
	return func(ctx context.Context, scope model.Scope) (*model.System, error) {
		sys, err := linuxkernel.New("").Read(ctx, scope)
		if err != nil {
			return nil, err
		}
		folders, err := filepath.Glob(filepath.Join(p.runDir, serviceLogName("*")))
		for _, folder := range folders {
			name := strings.TrimSuffix(filepath.Base(folder), serviceLogName(""))
			more, err := p.services(ownProgram(), name).Read(ctx, scope)
			if err != nil {
				return nil, err
			}
			maps.Copy(sys.Objects, more.Objects)
		}
		return sys, err
	}
}

func (p *program) graph() *cobra.Command {
	var live, dot bool
	var output string
	cmd := &cobra.Command{
		Use:   "graph [FILE]",
		Short: "draw devices and namespaces",
		Long: `Usage: culvert graph FILE [--live] [--dot] [-o OUT]
       culvert graph --live [--dot] [-o OUT]

Draws the devices that FILE declares, with their namespaces, masters, parents, cables, shaping and services, as an SVG picture on
stdout. Nothing is touched. Pointing at a thing in a browser shows all that is known of it.

      --live     draw the running system: alone, all of its named namespaces; with FILE, its namespaces as they are, with what is
                 missing, differs or is extra marked
      --dot      write graphviz's language instead of SVG
  -o, --output   write to the file OUT
`,
		Args: needArgs("[FILE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !live {
				return &usageError{"graph needs FILE, or --live for the running system", cmd.CommandPath()}
			}
			if output == "" && !dot && isTerminal(p.stdout) {
				return &usageError{"the picture is SVG, which a terminal does not show: add -o OUT.svg, or --dot for text", cmd.CommandPath()}
			}
			var source graph.Source
			var err error
			instance := ""
			if len(args) == 1 {
				file, loadErr := loadConfig(args[0])
				if loadErr != nil {
					return configHint(args[0], loadErr)
				}
				p.warn(file.Warnings)
				source, instance = declaredSource(file), file.Instance
			}
			if live {
				source, err = withSystem(cmd.Context(), source, p.systemReader(instance))
				if err != nil {
					return permissionHint(fmt.Errorf("cannot read the running system: %w", err))
				}
			}
			return p.writeGraph(graph.New(source), dot, output)
		},
	}
	cmd.Flags().BoolVar(&live, "live", false, "")
	cmd.Flags().BoolVar(&dot, "dot", false, "")
	cmd.Flags().StringVarP(&output, "output", "o", "", "")
	return cmd
}

// declaredSource is what a file declares.
func declaredSource(file *config.File) graph.Source {
	s := graph.Source{Title: filepath.Base(file.Path), Items: model.Expand(&file.Setup), Peers: map[model.Ref][]string{}}
	if s.Items == nil {
		s.Items = []model.Item{}
	}
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		r := model.NewRef("", t.Name)
		s.Peers[r] = nil // a tunnel, also where it has none
		for _, peer := range t.Peers {
			s.Peers[r] = append(s.Peers[r], peer.Name)
		}
	}
	return s
}

// withSystem adds what is there: in the namespaces of what is declared, or, where nothing is, in all that have names.
func withSystem(ctx context.Context, s graph.Source, read systemReader) (graph.Source, error) {
	netns := map[string]bool{"": true}
	var scope model.Scope
	for _, i := range s.Items {
		switch i.ID.Kind() {
		case model.KindNetns:
			netns[i.ID.Rest()] = true
		case model.KindProcess, model.KindHandover:
			scope.Processes = append(scope.Processes, i.ID)
		case model.KindSysctl, model.KindDNS:
			scope.Settings = append(scope.Settings, i.ID)
		}
		netns[i.ID.Netns()] = true
	}
	if s.Items == nil {
		names, err := read(ctx, model.Scope{Netns: []string{""}})
		if err != nil {
			return s, err
		}
		for id := range names.Objects {
			if id.Kind() == model.KindNetns {
				netns[id.Rest()] = true
			}
		}
		s.Title = "the running system"
	} else {
		s.Title += " and the running system"
	}
	scope.Netns = slices.Sorted(maps.Keys(netns))
	slices.Sort(scope.Processes)
	slices.Sort(scope.Settings)
	var err error
	s.System, err = read(ctx, scope)
	return s, err
}

// writeGraph writes a picture to a file, or to stdout where none is named.
func (p *program) writeGraph(g *graph.Graph, dot bool, output string) error {
	write := g.SVG
	if dot {
		write = g.DOT
	}
	if output == "" {
		if err := write(p.stdout); err != nil {
			return fmt.Errorf("cannot write the picture: %w", err)
		}
		return nil
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("cannot write the picture: %w", err)
	}
	_, err = io.Copy(f, &b)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot write the picture: %w", err)
	}
	return nil
}
