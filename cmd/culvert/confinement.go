package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"culvert/config"
	"culvert/confine"
	"culvert/control"
	"culvert/setup/spec"
)

// confinement is what a daemon has given up once it was up, or why it has not.
type confinement struct {
	files, calls string // why not; "" is in force
	nameless     bool   // /etc/resolv.conf is out of reach
	refused      string // the system calls, as confine.Calls names them; "" where none are refused
	pin          *os.File
}

// A confined daemon asks for /proc/sys/net again and again. The kernel may forget the folder that nobody has open, and the one it makes
// instead is another, for which no right was kept.
const pinned = "/proc/sys/net"

// planConfinement says what a daemon with this file can give up: why files stay as they are, and why system calls do. By itself, files are taken
// from a daemon that cannot mount (CAP_SYS_ADMIN), as the service's: one that can may be asked for namespaces by a reload, which nobody makes
// under Landlock. "confine: files" takes them from that one as well.
func planConfinement(file *config.File) (o confine.Options, files, calls string) {
	have, known := capabilities()
	mounts := !known || have&(1<<capSysAdmin) != 0
	o = confine.Options{Mounts: mounts, Modules: mounts}
	switch {
	case file.Confine == config.ConfineNothing:
		return o, "the file says confine: false", "the file says confine: false"
	default:
		if what := commandsOf(file); what != "" {
			return o, what, what // which may do anything
		}
	}
	switch what := needsFiles(file); {
	case what != "":
		return o, what, ""
	case mounts && file.Confine != config.ConfineFiles:
		return o, "the process has CAP_SYS_ADMIN and the file does not say confine: files", ""
	}
	return confine.Options{Files: []confine.Path{}}, "", ""
}

// commandsOf says which commands of a user's a file has.
func commandsOf(file *config.File) string {
	if len(file.On) > 0 {
		return "programs at events"
	}
	for i := range file.Tunnels {
		if t := &file.Tunnels[i]; anyHooks(t.Hooks) {
			return "commands of " + t.Name
		}
	}
	return ""
}

const earlierNetwork = "the network of an earlier file"

// needsFiles says what in a file has files of the machine's opened, or programs run, that nobody can name beforehand.
func needsFiles(file *config.File) string {
	if what := commandsOf(file); what != "" {
		return what
	}
	if os.Geteuid() == 0 { // others can change no file of the machine's; they ask systemd-resolved
		for i := range file.Tunnels {
			t := &file.Tunnels[i]
			if len(t.DNS.Servers) > 0 || len(t.DNS.Domains) > 0 || len(t.DNS.Search) > 0 || pulledFrom(t) >= 0 {
				return "name servers of " + t.Name
			}
		}
	}
	s := &file.Setup
	for i := range s.Links {
		switch l := &s.Links[i]; {
		case l.Type == spec.TypeTeam, l.Type == spec.TypeMacvtap, l.Type == spec.TypeIPvtap, l.Handover != nil:
			return string(l.Type) + " " + l.DeviceName()
		}
	}
	switch {
	case len(s.Netns) > 0:
		return "network namespace " + s.Netns[0].Name
	case len(s.Services) > 0:
		return "dnsmasq"
	}
	return ""
}

// needsNames reports whether names are looked up for a file.
func needsNames(file *config.File) bool {
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		for j := range t.Peers {
			for _, e := range t.Peers[j].Endpoints {
				if _, err := netip.ParseAddr(e.Host); err != nil {
					return true
				}
			}
		}
		if t.Server != nil {
			for j := range t.Server.Groups {
				if s := t.Server.Groups[j].SignIn; s != nil && s.OIDC != nil {
					return true
				}
			}
		}
	}
	return false
}

// namedNamespaces is where the machine has its named namespaces, which the setup layer lists: a name may be declared that is another's.
const namedNamespaces = "/run/netns"

// ownFiles are those of any daemon that is up: its folders, the network's settings, itself to be started again.
func (p *program) ownFiles() []confine.Path {
	list := []confine.Path{
		{Path: p.runDir, Access: confine.Write}, {Path: p.wgDir, Access: confine.Write},
		{Path: "/dev/net/tun", Access: confine.Device}, {Path: "/dev/null", Access: confine.Device},
		{Path: "/proc", Access: confine.Read}, {Path: "/sys", Access: confine.Read}, {Path: pinned, Access: confine.Change},
	}
	if own, err := os.Executable(); err == nil {
		list = append(list, confine.Path{Path: filepath.Dir(own), Access: confine.Run})
	}
	if from := startedFrom(os.Args[0]); from != "" {
		list = append(list, confine.Path{Path: filepath.Dir(from), Access: confine.Run})
	}
	return list
}

const etc = "/etc"

// nameFiles are those that names are looked up and certificates held against by. /etc/resolv.conf is replaced when the machine moves to another
// network, so it is its folder that counts: all of /etc, unless it is a link to elsewhere or who runs this asks to be strict and needs no names.
// What root alone may read in /etc, the service's user cannot.
func nameFiles(file *config.File) (list []confine.Path, nameless bool) {
	const resolv = etc + "/resolv.conf"
	add := func(paths ...string) {
		for _, path := range paths {
			list = append(list, confine.Path{Path: path, Access: confine.Read})
		}
	}
	add("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/usr/share/zoneinfo", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
		"/usr/lib/ssl", etc+"/ssl", etc+"/pki", etc+"/ca-certificates", etc+"/hosts", etc+"/nsswitch.conf", etc+"/localtime", resolv)
	dir := etc
	if real, err := filepath.EvalSymlinks(resolv); err == nil {
		dir = filepath.Dir(real)
	}
	switch {
	case file.Confine != config.ConfineFiles, dir == etc && needsNames(file):
		add(etc, dir)
	case dir == etc:
		return list, true
	default:
		add(dir)
	}
	return list, false
}

// filesOf are the files that a daemon of a file needs once it is up, to read it again as well.
func (p *program) filesOf(file *config.File) (list []confine.Path, nameless bool) {
	list, nameless = nameFiles(file)
	list = append(append(list, p.ownFiles()...), confine.Path{Path: p.stateDir, Access: confine.Write}, confine.Path{Path: namedNamespaces, Access: confine.Read})
	folder := func(name string, access confine.Access) {
		if name == "" {
			return
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(file.Path), name)
		}
		list = append(list, confine.Path{Path: filepath.Dir(name), Access: access})
		if real, err := filepath.EvalSymlinks(name); err == nil {
			list = append(list, confine.Path{Path: filepath.Dir(real), Access: access})
		}
	}
	folder(file.Path, confine.Read)
	folder(file.Monitor.Metrics.Socket, confine.Write)
	folder(file.Monitor.Page.Socket, confine.Write)
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		list = append(list, confine.Path{Path: dir, Access: confine.Read})
	}
	for i := range file.Tunnels {
		t := &file.Tunnels[i]
		folder(t.PrivateKeyFile, confine.Read)
		folder(t.TCP.KeyFile, confine.Read)
		folder(t.TCP.CertificateFile, confine.Read)
		for j := range t.Peers {
			folder(t.Peers[j].PresharedKeyFile, confine.Read)
		}
		if t.Server == nil {
			continue
		}
		for j := range t.Server.Groups {
			if s := t.Server.Groups[j].SignIn; s != nil && s.OIDC != nil {
				folder(s.OIDC.ClientSecret.File, confine.Read)
				if s.OIDC.Authority != nil {
					folder(s.OIDC.Authority.File, confine.Read)
				}
			}
		}
	}
	return list, nameless
}

// filesAreTaken reports whether files have been taken from this process already, as they are from one that a confined daemon has started: the
// folder / is everybody's to list, and no daemon keeps it.
func filesAreTaken() bool {
	f, err := os.Open("/")
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	f.Close()
	return false
}

// confine gives up what is not needed any more, and says so once.
func (d *daemon) confine() {
	b, ok := d.body.(interface {
		confinement(apply func(confine.Options) confine.Result) *confinement
	})
	if !ok || d.p.confine == nil {
		return
	}
	c := b.confinement(d.p.confine)
	d.mu.Lock()
	d.confined = c
	d.mu.Unlock()
	s := c.status()
	d.log.Info("confinement", "files", s.Files, "calls", s.Calls)
}

// confinement gives up what the file does not need.
func (in *instance) confinement(apply func(confine.Options) confine.Result) *confinement {
	c := &confinement{refused: in.d.refused}
	var o confine.Options
	o, c.files, c.calls = planConfinement(in.file)
	if c.calls != "" {
		return c
	}
	if in.net != nil && o.Files != nil && !in.file.DeclaresSetup() { // which may have had services and namespaces
		o.Files, c.files = nil, earlierNetwork
	}
	if o.Files != nil {
		if err := os.MkdirAll(in.d.p.stateDir, 0o700); err != nil { // a folder that is made later could not be
			in.d.log.Warn("no folder for what outlasts the daemon", "error", err)
		}
		o.Files, c.nameless = in.d.p.filesOf(in.file)
	}
	c.give(o, apply)
	return c
}

// confinement gives up what no interface of wg's needs.
func (w *wgInterface) confinement(apply func(confine.Options) confine.Result) *confinement {
	c := &confinement{}
	c.give(confine.Options{Files: w.d.p.ownFiles()}, apply)
	return c
}

// give gives up what the options do not keep. Files that have been taken before are not taken again: the kernel counts how often.
func (c *confinement) give(o confine.Options, apply func(confine.Options) confine.Result) {
	if o.Files != nil {
		c.pin, _ = os.Open(pinned) // in a machine without, nothing is written there
		if filesAreTaken() {
			o.Files = nil
		}
	}
	o.Refused = c.refused
	r := apply(o)
	if c.calls = r.Calls; c.calls == "" {
		c.refused = confine.Calls(o)
	}
	if c.files == "" {
		c.files = r.Files
	}
}

// allows refuses a changed file that needs what was given up. A remark says what is different of one that does not.
func (c *confinement) allows(file *config.File) (remark string, err error) {
	if c == nil {
		return "", nil
	}
	restart := func(what string) error {
		return hint(fmt.Errorf("%s: the daemon has given up the files for that, as its file had none when it was started", what),
			"culvert down %[1]s, then culvert up %s; or systemctl restart culvert@%[1]s", file.Instance, file.Path)
	}
	switch what := needsFiles(file); {
	case c.files == "" && what != "":
		return "", restart(what)
	case c.files == "" && c.nameless && needsNames(file):
		return "", restart("names to look up")
	}
	if what := commandsOf(file); c.calls == "" && what != "" {
		return what + ": they cannot use what the daemon has given up (docs/operations.md, Confinement) until it is started again", nil
	}
	return "", nil
}

// explain says of a failure to open a file why it may have failed.
func (c *confinement) explain(err error) error {
	if c == nil || c.files != "" || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return hint(err, "the daemon opens no files but in the folders its file named when it was started: start it again (culvert down, culvert up) "+
		"where the file is elsewhere now")
}

const inForce = "confined"

func (c *confinement) status() *control.Confinement {
	if c == nil {
		return nil
	}
	say := func(why string) string {
		if why == "" {
			return inForce
		}
		return "open: " + why
	}
	return &control.Confinement{Files: say(c.files), Calls: say(c.calls)}
}
