package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"culvert/config"
	"culvert/control"
)

func (p *program) export() *cobra.Command {
	return &cobra.Command{
		Use:   "export NAME|FILE [TUNNEL]",
		Short: "write a tunnel as a wg-quick file",
		Long: `Usage: culvert export NAME|FILE [TUNNEL] > wg0.conf

Writes a tunnel of FILE, or of the file the running instance NAME was started with, as a wg-quick file. It holds the private
key: set umask 077. TUNNEL says which, where the file has several. What wg-quick's format cannot say is told on stderr.
`,
		Args: needArgs("NAME|FILE", "[TUNNEL]"),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := p.fileOf(args[0])
			if err != nil {
				return err
			}
			file, err := config.Load(path)
			if err != nil {
				return err
			}
			t, err := chooseTunnel(file, args[1:])
			if err != nil {
				return err
			}
			if readableByAll(p.stdout) {
				fmt.Fprintf(p.stderr, "culvert: warning: everybody can read the file this private key goes to\n"+
					"  hint: set \"umask 077\" first, and make a new key now\n")
			}
			warnings, err := config.WriteWGQuick(p.stdout, t)
			for _, w := range warnings {
				fmt.Fprintf(p.stderr, "warning: %s\n", w)
			}
			return err
		},
	}
}

// fileOf is the file meant by an argument: the one of a running instance, or the argument itself.
func (p *program) fileOf(arg string) (string, error) {
	ext := strings.ToLower(filepath.Ext(arg))
	if strings.Contains(arg, "/") || ext == ".yaml" || ext == ".yml" || ext == ".conf" {
		return arg, nil
	}
	p.locate(arg)
	in, err := p.ask(arg).Status(context.Background())
	switch {
	case errors.Is(err, control.ErrNotRunning):
		if guess := filepath.Join("/etc/culvert", arg+".yaml"); exists(guess) {
			return guess, nil
		}
		return "", hint(p.callError(arg, err), "name a file instead")
	case err != nil:
		return "", p.callError(arg, err)
	case in.File == "":
		return "", hint(fmt.Errorf("%s was not started from a file", arg), "wg showconf %s shows its configuration", arg)
	}
	return in.File, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func chooseTunnel(file *config.File, names []string) (*config.Tunnel, error) {
	var all []string
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		if len(names) == 0 && len(file.Tunnels) == 1 || len(names) == 1 && names[0] == t.Name {
			return t, nil
		}
		all = append(all, t.Name)
	}
	if len(names) == 1 {
		return nil, fmt.Errorf("%s has no tunnel %s, but %s", file.Path, names[0], strings.Join(all, ", "))
	}
	return nil, hint(fmt.Errorf("%s has %d tunnels: %s", file.Path, len(all), strings.Join(all, ", ")), "say which: culvert export %s %s", file.Path, all[0])
}
