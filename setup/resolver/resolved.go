package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"culvert/setup/model"
)

// The way of systemd-resolved (org.freedesktop.resolve1(5)), which asks the servers of each link for the domains of that link.

const (
	busTime     = 10 * time.Second
	busName     = "org.freedesktop.resolve1"
	managerPath = "/org/freedesktop/resolve1"
	managerName = busName + ".Manager"
	linkName    = busName + ".Link"
)

// linkDNS is a server, as D-Bus has it: iay.
type linkDNS struct {
	Family  int32
	Address []byte
}

// linkDomain is a domain: sb. RouteOnly says that it does not complete short names.
type linkDomain struct {
	Name      string
	RouteOnly bool
}

// resolved is a connection to it.
type resolved struct {
	conn *dbus.Conn
	ctx  context.Context
	end  context.CancelFunc
}

func (k *Kernel) openResolved(ctx context.Context) (*resolved, error) {
	ctx, end := context.WithTimeout(ctx, busTime)
	conn, err := k.o.Bus(ctx)
	if err != nil {
		end()
		return nil, err
	}
	return &resolved{conn, ctx, end}, nil
}

func (r *resolved) close() {
	_ = r.conn.Close()
	r.end()
}

// answers reports whether somebody has its name, or would be started for it.
func (r *resolved) answers() bool {
	var has bool
	bus := r.conn.BusObject()
	if err := bus.CallWithContext(r.ctx, "org.freedesktop.DBus.NameHasOwner", 0, busName).Store(&has); err == nil && has {
		return true
	}
	var names []string
	err := bus.CallWithContext(r.ctx, "org.freedesktop.DBus.ListActivatableNames", 0).Store(&names)
	return err == nil && slices.Contains(names, busName)
}

func (r *resolved) call(method string, args ...any) *dbus.Call {
	return r.conn.Object(busName, managerPath).CallWithContext(r.ctx, managerName+"."+method, 0, args...)
}

// set tells what a link has.
func (r *resolved) set(index int, servers, domains []string) error {
	dns, err := toLinkDNS(servers)
	if err != nil {
		return err
	}
	_, all := routed(domains)
	for _, c := range []struct {
		method string
		arg    any
	}{{"SetLinkDNS", dns}, {"SetLinkDomains", toLinkDomains(domains)}, {"SetLinkDefaultRoute", all}} {
		if err := r.call(c.method, int32(index), c.arg).Err; err != nil {
			return refusedBy(c.method, err)
		}
	}
	_ = r.call("FlushCaches").Err // what others had answered
	return nil
}

// revert takes away what a link has. One that is gone has nothing.
func (r *resolved) revert(index int) error {
	err := r.call("RevertLink", int32(index)).Err
	if err == nil || isNoLink(err) {
		_ = r.call("FlushCaches").Err
		return nil
	}
	return refusedBy("RevertLink", err)
}

// refusedBy is systemd-resolved's error, with what to do where it is about who asks.
func refusedBy(method string, err error) error {
	err = fmt.Errorf("systemd-resolved: %s: %w", method, err)
	e, ok := errors.AsType[dbus.Error](err)
	if ok && (e.Name == "org.freedesktop.DBus.Error.AccessDenied" || e.Name == "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired") {
		return fmt.Errorf("%w: user %d may not set name servers; root may, and the user of culvert's services where polkit runs with the package's rule /usr/share/polkit-1/rules.d/culvert.rules",
			err, os.Geteuid())
	}
	return err
}

func isNoLink(err error) bool {
	e, ok := errors.AsType[dbus.Error](err)
	return ok && (e.Name == busName+".NoSuchLink" || e.Name == "org.freedesktop.DBus.Error.UnknownObject")
}

// get returns what a link has, in the texts of records.
func (r *resolved) get(index int) (servers, domains []string, err error) {
	var path dbus.ObjectPath
	if err := r.call("GetLink", int32(index)).Store(&path); err != nil {
		return nil, nil, err
	}
	link := r.conn.Object(busName, path)
	var dns []linkDNS
	var names []linkDomain
	for name, into := range map[string]any{"DNS": &dns, "Domains": &names} {
		var v dbus.Variant
		if err := link.CallWithContext(r.ctx, "org.freedesktop.DBus.Properties.Get", 0, linkName, name).Store(&v); err != nil {
			return nil, nil, err
		}
		if err := v.Store(into); err != nil {
			return nil, nil, err
		}
	}
	for _, d := range dns {
		if a, ok := netip.AddrFromSlice(d.Address); ok {
			servers = append(servers, a.String())
		}
	}
	for _, d := range names {
		name := strings.TrimSuffix(d.Name, ".")
		if name == "" {
			name = "."
		}
		if d.RouteOnly {
			name = "~" + name
		}
		domains = append(domains, name)
	}
	slices.Sort(domains)
	return servers, domains, nil
}

func toLinkDNS(servers []string) (list []linkDNS, err error) {
	for _, s := range servers {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		family := int32(syscall.AF_INET6)
		if a.Is4() {
			family = syscall.AF_INET
		}
		list = append(list, linkDNS{family, a.WithZone("").AsSlice()})
	}
	return list, nil
}

func toLinkDomains(domains []string) []linkDomain {
	list := []linkDomain{}
	for _, d := range domains {
		name, only := strings.CutPrefix(d, "~")
		list = append(list, linkDomain{name, only})
	}
	return list
}

func (k *Kernel) setResolved(ctx context.Context, r *record, ref model.Ref) error {
	index, err := k.o.Index(ref.Netns(), ref.Name())
	if err != nil {
		return err
	}
	c, err := k.openResolved(ctx)
	if err != nil {
		return hinted(fmt.Errorf("systemd-resolved cannot be reached over D-Bus: %w", err), "systemctl start systemd-resolved, or choose another resolver")
	}
	defer c.close()
	if err := k.store.write(r); err != nil {
		return err
	}
	return c.set(index, r.Servers, r.Domains)
}

// unsetResolved takes a link's servers away. With the link, or with systemd-resolved, they are gone by themselves.
func (k *Kernel) unsetResolved(ctx context.Context, ref model.Ref) error {
	index, err := k.o.Index(ref.Netns(), ref.Name())
	if err != nil {
		return nil
	}
	c, err := k.openResolved(ctx)
	if err != nil {
		return nil
	}
	defer c.close()
	if !c.answers() {
		return nil
	}
	return c.revert(index)
}

// lookResolved tells what it knows of the link now: nothing where it, or the link, is gone.
func (k *Kernel) lookResolved(ctx context.Context, r *record) *model.Object {
	o := r.object()
	o.Fields["servers"], o.Fields["domains"] = "", ""
	ref := r.ID.Link()
	index, err := k.o.Index(ref.Netns(), ref.Name())
	if err != nil {
		return o
	}
	c, err := k.openResolved(ctx)
	if err != nil {
		return o
	}
	defer c.close()
	if servers, domains, err := c.get(index); err == nil {
		o.Fields["servers"], o.Fields["domains"] = listed(servers), listed(domains)
	}
	return o
}

// usesResolved reports whether programs on the machine ask systemd-resolved: by way of resolv.conf, or of nsswitch.conf(5).
func (k *Kernel) usesResolved() bool {
	path := filepath.Join(k.root(), resolvConf)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		if rest, err := filepath.Rel(k.root(), real); err == nil &&
			(strings.HasPrefix(rest, "run/systemd/resolve/") || strings.HasPrefix(rest, "usr/lib/systemd/")) {
			return true
		}
	}
	text, _ := readFile(path)
	if list := servers(text); len(list) > 0 && !slices.ContainsFunc(list, func(a netip.Addr) bool { return !isStub(a) }) {
		return true
	}
	text, _ = readFile(filepath.Join(k.root(), "etc/nsswitch.conf"))
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 1 && words[0] == "hosts:" {
			return slices.Contains(words, "resolve")
		}
	}
	return false
}

// isStub reports whether an address is one that systemd-resolved listens at (systemd-resolved.service(8)).
func isStub(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}
