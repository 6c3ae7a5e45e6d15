package main

import (
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"culvert/config"
	"culvert/control"
)

func (p *program) up() *cobra.Command {
	var foreground, debug bool
	cmd := &cobra.Command{
		Use:   "up FILE",
		Short: "start the tunnels of a file, and the network around them",
		Long: `Usage: culvert up FILE [-f] [--debug]

Starts a daemon with the tunnels of FILE: NAME.yaml in culvert's format, or NAME.conf in wg-quick's. It returns once the
tunnels are up, with addresses and routes; a handshake may still be under way. What else FILE declares, the bridges, namespaces, limits
and so on that "culvert plan FILE" shows, is made around them. Nothing is touched where the file is wrong (exit
code 78), and a start that fails half-way takes back what it did. What a daemon that was killed has left is completed.

  -f, --foreground   do not start a daemon: run until SIGTERM or Ctrl-C, log to stderr (for systemd: Type=notify)
  --debug            log each handshake as well

Where a server that it is the client of demands a sign-in, it is asked for at a terminal; elsewhere culvert signin NAME does so.

The daemon's log is /run/culvert/NAME.log; its interfaces can also be looked at and changed with wg. SIGHUP reloads.
`,
		Args: needArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			file, err := loadConfig(path)
			if err != nil {
				return configHint(args[0], err)
			}
			ready, err := takeReadyPipe()
			if err != nil {
				return err
			}
			if !ready.detached() {
				p.warn(file.Warnings)
				if err := p.runsAsService(file.Instance); err != nil {
					return err
				}
			}
			if !foreground && !ready.detached() {
				again := []string{"up", path}
				if debug {
					again = append(again, "--debug")
				}
				if err := p.detach(nil, again...); err != nil {
					return err
				}
				if pullsAny(file) && p.interactive() {
					return p.signInAfter(file.Instance)
				}
				return nil
			}
			level := slog.LevelInfo
			if debug {
				level = slog.LevelDebug
			}
			d := &daemon{p: p, name: file.Instance, kind: "up", file: path, nice: file.Nice, ready: ready}
			d.body = &instance{d: d, kernel: p.kernel(), file: file}
			return ready.report(d.serve(level))
		},
	}
	cmd.Flags().BoolVarP(&foreground, "foreground", "f", false, "")
	cmd.Flags().BoolVar(&debug, "debug", false, "")
	return cmd
}

// loadConfig loads a file and checks what it takes more than the file to know.
func loadConfig(path string) (*config.File, error) {
	file, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	var errs config.Errors
	if !control.ValidName(file.Instance) {
		errs = append(errs, file.ErrorAt(config.Position{File: path}, fmt.Sprintf("%q cannot be the name of an instance", file.Instance),
			"use 1 to 64 of a-z A-Z 0-9 _ = + . -, not a dot first: in the file's name, or with \"instance: NAME\" in it", nil))
	}
	for _, on := range file.On {
		if err := (control.EventOptions{Kinds: on.Events}).Check(); err != nil {
			errs = append(errs, file.ErrorAt(on.EventsPos, err.Error(), "", err))
		}
	}
	if len(file.On) > 0 {
		if err := trustedFolder(path); err != nil {
			errs = append(errs, file.ErrorAt(file.On[0].Pos, err.Error(), "", err))
		}
	}
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		if t.SaveConfig {
			file.Warnings = append(file.Warnings, file.ErrorAt(t.SaveConfigPos, "SaveConfig is not supported: culvert never writes to its configuration", "", nil))
		}
		if t.Server != nil {
			c := serverConfig(t)
			if err := c.Check(); err != nil {
				errs = append(errs, serverErrors(file, t, err)...)
			}
		}
		if anyHooks(t.Hooks) {
			if err := trustedFolder(path); err != nil {
				errs = append(errs, file.ErrorAt(t.Pos, err.Error(), "", err))
			}
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return file, nil
}

// configHint helps those who gave an instance's name instead of a file's.
func configHint(arg string, err error) error {
	if filepath.Base(arg) != arg || exists(arg) {
		return err
	}
	for _, guess := range []string{"/etc/culvert/" + arg, "/etc/culvert/" + arg + ".yaml", "/etc/wireguard/" + arg + ".conf", arg + ".yaml", arg + ".conf"} {
		if exists(guess) {
			return hint(err, "did you mean %s?", guess)
		}
	}
	return err
}

func (p *program) warn(warnings []*config.Error) {
	for _, w := range warnings {
		fmt.Fprintf(p.stderr, "warning: %v\n", w)
	}
}
