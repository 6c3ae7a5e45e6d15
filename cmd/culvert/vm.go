package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"culvert/config"
	"culvert/control"
	"culvert/setup"
)

func (p *program) vm() *cobra.Command {
	var o vmOptions
	cmd := &cobra.Command{
		Use:   "vm NAME",
		Short: "run a virtual machine on a tunnel, without a bridge",
		Long: `Usage: culvert vm NAME [INTERFACE] [--macvtap IFNAME | --tap IFNAME] -- COMMAND [ARGS...]
       culvert vm NAME [INTERFACE] [--macvtap IFNAME] --socket PATH

Makes a port for one virtual machine on a tunnel of the running instance NAME: the machine is the station at the tunnel's
end, with any MAC address, VLANs and all. Then it runs COMMAND, passes signals on to it, takes the port away when it has
ended, and ends with its exit code. INTERFACE is the tunnel's, where NAME has several of mode tap. It runs where the daemon
does: as root, in the same network namespace.

  culvert vm office -- qemu-system-x86_64 ... -netdev tap,id=n0,fd={fd} -device virtio-net-pci,netdev=n0,mac={mac}
  culvert vm office --tap vm1 -- qemu-system-x86_64 ... \
      -netdev tap,id=n0,ifname={name},script=no,downscript=no -device virtio-net-pci,netdev=n0,mac={mac}

  --macvtap IFNAME   the port is a macvtap of that name, and COMMAND gets it as descriptor 3; so it is without an option as
                     well, the name then being the first free one of vmtap0, vmtap1 ...
  --tap IFNAME       the port is a tap that COMMAND opens by its name; it works on when the tunnel is started again
  --socket PATH      run nothing: give the macvtap's descriptor (one byte with SCM_RIGHTS) to each process of this user, or
                     root, that connects to the socket PATH. Until SIGTERM or Ctrl-C.

In ARGS {fd}, {name}, {mac} and {mtu} are replaced. COMMAND has the same in its environment: CULVERT_TAP_FD (not with --tap),
CULVERT_TAP_NAME, CULVERT_TAP_MAC (an address for the machine that stays the same) and CULVERT_TAP_MTU. A port that a killed
"culvert vm" left is taken away by the next one. Several machines on one tunnel need a bridge: see docs/vm.md.

The exit code is COMMAND's, or 128 and the number of the signal that ended it; 126 and 127 where it cannot be run or found.
`,
		Args: func(cmd *cobra.Command, args []string) error { return o.take(cmd, args) },
		RunE: func(*cobra.Command, []string) error { return p.runVM(&o) },
	}
	cmd.Flags().StringVar(&o.macvtap, "macvtap", "", "")
	cmd.Flags().StringVar(&o.tap, "tap", "", "")
	cmd.Flags().StringVar(&o.socket, "socket", "", "")
	return cmd
}

// vmOptions are what the command line of "culvert vm" says.
type vmOptions struct {
	instance, link       string // link: "" for the only one
	macvtap, tap, socket string
	command              []string
}

// take reads the arguments, those behind "--" being the command's.
func (o *vmOptions) take(cmd *cobra.Command, args []string) error {
	wrong := func(format string, a ...any) error { return &usageError{fmt.Sprintf(format, a...), cmd.CommandPath()} }
	own := args
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		own, o.command = args[:dash], args[dash:]
	}
	if len(own) > 2 && o.command == nil {
		return wrong("vm needs -- in front of COMMAND")
	}
	if err := needArgs("NAME", "[INTERFACE]")(cmd, own); err != nil {
		return err
	}
	o.instance = nameOf(own[0])
	if len(own) > 1 {
		o.link = own[1]
	}
	given := cmd.Flags().Changed
	switch {
	case given("tap") && given("macvtap"):
		return wrong("--tap and --macvtap exclude each other: a port is one of the two")
	case given("tap") && given("socket"):
		return wrong("--socket hands over a descriptor, and a tap is opened by its name: use --macvtap, or no option")
	case given("socket") && len(o.command) > 0:
		return wrong("--socket runs no COMMAND")
	case given("socket") && o.socket == "":
		return wrong("--socket needs a PATH")
	case !given("socket") && len(o.command) == 0:
		return wrong("vm needs -- COMMAND, or --socket PATH")
	}
	for _, flag := range []string{"tap", "macvtap"} {
		if !given(flag) {
			continue
		}
		if err := setup.CheckLinkName(cmd.Flag(flag).Value.String()); err != nil {
			return wrong("--%s: %v", flag, err)
		}
	}
	if o.tap != "" {
		for _, arg := range o.command[1:] {
			if strings.Contains(arg, "{fd}") {
				return wrong("there is no {fd} with --tap: COMMAND opens the tap by its {name}")
			}
		}
	}
	return nil
}

// runVM makes the port, does with it what was asked for and takes it away.
func (p *program) runVM(o *vmOptions) (err error) {
	var path string
	if o.socket != "" {
		if abs, err := filepath.Abs(o.socket); err == nil && filepath.Dir(abs) == filepath.Clean(p.runDir) {
			return &usageError{fmt.Sprintf("--socket: %s is for sockets of instances, name another folder", p.runDir), "culvert vm"}
		}
	}
	if len(o.command) > 0 {
		// Before anything is made.
		if path, err = exec.LookPath(o.command[0]); err != nil {
			return p.cannotRun(err)
		}
	}
	p.locate(o.instance)
	in, err := p.ask(o.instance).Status(context.Background())
	if err != nil {
		return p.callError(o.instance, err)
	}
	link, err := o.chooseLink(in)
	if err != nil {
		return err
	}
	signals := catchSignals()
	defer signals.stop()
	spec := setup.VMPort{Link: link.Interface, Kind: setup.VMPortMacvtap, Name: o.macvtap}
	if o.tap != "" {
		spec.Kind, spec.Name = setup.VMPortTap, o.tap
	}
	port, err := setup.AttachVM(spec)
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := port.Remove(); removeErr != nil {
			err = errors.Join(err, fmt.Errorf("cannot take the port away: %w", removeErr))
		}
	}()
	g := guestLink{port: port, mac: guestMAC(link)}
	if g.name, err = port.Name(); err != nil {
		return err
	}
	if g.mtu, err = port.MTU(); err != nil {
		return err
	}
	if o.socket != "" {
		return p.handOver(o.socket, &g, signals)
	}
	return p.runCommand(path, o.command, &g, signals)
}

// chooseLink finds the tunnel that is meant.
func (o *vmOptions) chooseLink(in control.Instance) (control.Tunnel, error) {
	if err := sameNamespace(in); err != nil {
		return control.Tunnel{}, err
	}
	var taps []control.Tunnel
	var names []string
	for _, t := range in.Tunnels {
		if t.Interface == o.link {
			return t, nil
		}
		if t.Mode == string(config.ModeTap) {
			taps = append(taps, t)
			names = append(names, t.Interface)
		}
	}
	switch {
	case o.link != "":
		return control.Tunnel{}, hint(fmt.Errorf("%s has no tunnel %s", in.Name, o.link), "culvert status %s shows what it has", in.Name)
	case len(taps) == 0:
		return control.Tunnel{}, hint(fmt.Errorf("%s has no tunnel that carries Ethernet frames", in.Name),
			"give a tunnel in its file mode: tap")
	case len(taps) > 1:
		return control.Tunnel{}, hint(fmt.Errorf("%s has several tunnels that carry Ethernet frames", in.Name),
			"name one of them: culvert vm %s %s ...", in.Name, strings.Join(names, "|"))
	}
	return taps[0], nil
}

// sameNamespace refuses to look for the daemon's interfaces in another network namespace than the daemon's.
func sameNamespace(in control.Instance) error {
	theirs, err := os.Readlink("/proc/" + strconv.Itoa(in.PID) + "/ns/net")
	if err != nil {
		return nil // not to be known; then the interface is there or is not
	}
	if ours, err := os.Readlink("/proc/self/ns/net"); err == nil && ours != theirs {
		return hint(fmt.Errorf("%s runs in another network namespace", in.Name), "nsenter --net=/proc/%d/ns/net culvert vm ...", in.PID)
	}
	return nil
}

// guestLink is a machine's port, and what the machine has to know of it.
type guestLink struct {
	port *setup.AttachedVM
	name string
	mac  net.HardwareAddr
	mtu  int
}

// guestMAC is an address for the machine on a tunnel: the same whenever it is started, and another on each tunnel. It is
// locally administered, and 46 bits of a hash (IEEE 802, section 8.2).
func guestMAC(t control.Tunnel) net.HardwareAddr {
	sum := sha256.Sum256([]byte("culvert vm\x00" + t.PublicKey + "\x00" + t.Interface))
	mac := net.HardwareAddr(sum[:6])
	const local, group = 2, 1
	mac[0] = mac[0]&^group | local
	return mac
}

// descriptor is the number COMMAND has the port's descriptor as; "" where it opens the port by its name.
func (g *guestLink) descriptor() string {
	if g.port.File() == nil {
		return ""
	}
	return "3" // the first of exec.Cmd's ExtraFiles
}

// arguments replaces what stands for the port.
func (g *guestLink) arguments(args []string) []string {
	r := strings.NewReplacer("{fd}", g.descriptor(), "{name}", g.name, "{mac}", g.mac.String(), "{mtu}", strconv.Itoa(g.mtu))
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = r.Replace(a)
	}
	return out
}

// environment tells the same in variables. Those of an outer "culvert vm" are not handed on.
func (g *guestLink) environment() []string {
	const prefix = "CULVERT_TAP_"
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, prefix) {
			env = append(env, v)
		}
	}
	env = append(env, prefix+"NAME="+g.name, prefix+"MAC="+g.mac.String(), prefix+"MTU="+strconv.Itoa(g.mtu))
	if fd := g.descriptor(); fd != "" {
		env = append(env, prefix+"FD="+fd)
	}
	return env
}
