package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"culvert/confine"
	"culvert/setup/journal"
)

// program is the outside world as the commands see it.
type program struct {
	name           string // the first argument, kept for starting the program again
	stdin          io.Reader
	stdout, stderr io.Writer
	runDir         string   // control sockets, locks, logs
	wgDir          string   // sockets of the userspace API
	stateDir       string   // journals of the setup layer, a directory for each instance
	service        *folders // where instances of services have all that; nil where this is one of them

	confine   func(confine.Options) confine.Result // takes rights from this process for good; nil, as in tests: nothing is taken
	priority  priority                             // of a daemon
	machineOf func(instance string) machine        // of tests; nil: the running system
	kernelOf  func() kernel                        // of tests, for tunnels; nil: the running system
}

// Where sockets lie, and variables of the environment by which tests put them elsewhere.
const (
	defaultWGDir = "/var/run/wireguard"
	runDirEnv    = "CULVERT_RUN_DIR"
	wgDirEnv     = "CULVERT_WG_DIR"
	stateDirEnv  = "CULVERT_STATE_DIR"
)

func newProgram(stdin io.Reader, stdout, stderr io.Writer) *program {
	return &program{
		name: "culvert", stdin: stdin, stdout: stdout, stderr: stderr,
		runDir:   directory(runDirEnv, defaultRunDir),
		wgDir:    directory(wgDirEnv, defaultWGDir),
		stateDir: directory(stateDirEnv, journal.Dir),
		service:  servicePlace(),
	}
}

// run is the whole program: it returns the exit code.
func (p *program) run(args []string) int {
	p.name = args[0]
	rest := args[1:]
	// Under the name culvert-wg it is the program wg-quick expects in WG_QUICK_USERSPACE_IMPLEMENTATION.
	if filepath.Base(args[0]) == "culvert-wg" {
		rest = append([]string{"wg"}, rest...)
		p.name = "culvert" // what it is started again as, with the command spelled out
	}
	root := p.root()
	root.SetArgs(rest)
	err := root.Execute()
	report(p.stderr, err)
	return exitCode(err)
}

// directory is the one named by a variable, with its full path: the daemon runs elsewhere.
func directory(variable, otherwise string) string {
	v := os.Getenv(variable)
	if v == "" {
		return otherwise
	}
	if abs, err := filepath.Abs(v); err == nil {
		return abs
	}
	return v
}

const overview = `culvert: encrypted tunnels on Linux

Run a tunnel from a file (culvert's YAML, or a wg-quick file NAME.conf as it is):
  culvert check FILE         say what FILE would do, or everything that is wrong with it
  culvert up FILE            start it; returns once the tunnel is up
  culvert status [NAME]      show what runs, like wg show; --json for programs
  culvert top [NAME]         watch it live: rates, round trips, losses, what is dropped and why
  culvert doctor NAME        say why it does not work, and what to do
  culvert capture NAME       show the packets inside, or record them for tcpdump and Wireshark
  culvert events [NAME]      tell what happens, as it happens
  culvert log NAME           the latest lines of its log; --level debug logs more
  culvert reload NAME        apply the changed file; sessions of unchanged peers stay
  culvert upgrade NAME       a new program goes on with it: no packet is lost, sessions stay
  culvert down NAME          stop it and take everything away
  culvert vm NAME -- QEMU... a virtual machine on a tunnel of mode tap, without a bridge

The network around it, or alone (bridges, bonds, namespaces, shaping, services, ...):
  culvert plan FILE          what would be made, changed and taken away, like a diff
  culvert apply FILE         do it; --confirm 60s undoes it unless "culvert confirm NAME" follows
  culvert destroy NAME|FILE  take everything away that it made
  culvert graph FILE         draw its devices and namespaces as SVG; --live what there is, compared with FILE

A server that clients join ("server:" in its file), and they:
  culvert invite NAME        print a link that one client can join with, once
  culvert join               join by the link that is pasted: key, file and tunnel in one
  culvert client list        who has joined; also show NAME, revoke NAME, totp NAME, add NAME --wireguard
  culvert signin NAME        sign in where the server demands it

Keys and files:
  culvert genkey | culvert genpsk | culvert pubkey
  culvert import wg0.conf > wg0.yaml
  culvert export NAME|FILE   as a wg-quick file

Without a file:
  culvert wg IFNAME          a userspace WireGuard for wg and wg-quick (also by the name culvert-wg)
  culvert demo               a tunnel between two namespaces of this machine, measured; cleans up

  culvert version            culvert completion bash|zsh|fish

"culvert COMMAND --help" tells more. Exit codes: 0 done, 1 failure, 2 wrong usage, 78 wrong configuration.
`

func (p *program) root() *cobra.Command {
	var asVersion bool // what most programs understand; the command's name here is version
	root := &cobra.Command{
		Use:           "culvert",
		Short:         "encrypted tunnels on Linux",
		Long:          overview,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("there is no command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += ", did you mean " + strings.Join(near, " or ") + "?"
			}
			return &usageError{text, "culvert"}
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if asVersion {
				return p.printVersion()
			}
			fmt.Fprint(p.stderr, overview)
			return &shownError{exitUsage}
		},
		SuggestionsMinimumDistance: 2,
	}
	root.Flags().BoolVar(&asVersion, "version", false, "")
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetHelpTemplate("{{.Long | trimTrailingWhitespaces}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err.Error(), cmd.CommandPath()}
	})
	root.AddCommand(p.genkey(), p.genpsk(), p.pubkey(), p.check(), p.up(), p.down(), p.reload(), p.status(), p.eventsCommand(), p.logCommand(),
		p.capture(), p.importCommand(), p.export(), p.plan(), p.apply(), p.confirm(), p.destroy(), p.upgrade(), p.succeed(), p.graph(), p.vm(), p.invite(), p.join(), p.client(), p.signin(), p.wg(), p.demo(), p.supervise(), p.versionCommand())
	root.AddCommand(p.top(), p.doctor())
	for _, c := range root.Commands() {
		c.DisableFlagsInUseLine = true
		p.completes(c)
	}
	return root
}

// needArgs refuses any other number of arguments than the names given, of which those in brackets may be left out.
func needArgs(names ...string) cobra.PositionalArgs {
	required := 0
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			required++
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		var text string
		switch {
		case len(names) == 0 && len(args) > 0:
			text = fmt.Sprintf("%s takes no arguments, got %q", cmd.Name(), args[0])
		case len(args) < required:
			text = fmt.Sprintf("%s needs %s", cmd.Name(), strings.Join(names[len(args):], " "))
		case len(args) > len(names):
			text = fmt.Sprintf("%s takes only %s, and got %q as well", cmd.Name(), strings.Join(names, " "), args[len(names)])
		default:
			return nil
		}
		return &usageError{text, cmd.CommandPath()}
	}
}
