package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/godbus/dbus/v5"

	"culvert/setup"
	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// The ways, as they are called in files.
const (
	byResolved   = "resolved"
	byResolvconf = "resolvconf"
	byFile       = "file"
)

const resolvConf = "etc/resolv.conf"

// Options are where a [Kernel] works. Instance and Dir are required.
type Options struct {
	Instance string
	Dir      string // for the records; made when one is written
	Root     string // the folder that has etc and run in it; "" is the machine's
	// Index returns the number of a device in a namespace, "" being the one culvert runs in. It is required.
	Index func(netns, link string) (int, error)
	// What follows is the machine's where it is nil.
	Bus     func(context.Context) (*dbus.Conn, error)
	Program func(name string) (path string, err error)
	First   string // the root folder of the machine's first process
	// Apart reports whether this process is in another network namespace than the machine's first, which the machine's resolvers
	// know nothing of.
	Apart func() bool
}

// Kernel is the part of a machine that resolves names, as one instance sees it. It keeps nothing in memory.
type Kernel struct {
	o     Options
	store store
}

var _ apply.Kernel = (*Kernel)(nil)

// New returns the part for an instance.
func New(o Options) *Kernel {
	if o.Bus == nil {
		o.Bus = func(ctx context.Context) (*dbus.Conn, error) { return dbus.ConnectSystemBus(dbus.WithContext(ctx)) }
	}
	if o.Program == nil {
		o.Program = lookProgram
	}
	if o.First == "" {
		o.First = "/proc/1/root"
	}
	if o.Apart == nil {
		o.Apart = apart
	}
	return &Kernel{o, store{o.Dir}}
}

func (k *Kernel) root() string {
	if k.o.Root == "" {
		return "/"
	}
	return k.o.Root
}

// apart compares this process's network namespace with that of the first one; where that cannot be seen, as in a container without
// rights, they are taken for the same.
func apart() bool {
	own, errOwn := os.Readlink("/proc/self/ns/net")
	first, errFirst := os.Readlink("/proc/1/ns/net")
	return errOwn == nil && errFirst == nil && own != first
}

// object is a record as a thing of the model, as it is where all is in force.
func (r *record) object() *model.Object {
	return &model.Object{ID: r.ID, Ours: true,
		Fields: model.Fields{"servers": listed(r.Servers), "domains": listed(r.Domains), "resolver": model.Text(r.By)}}
}

func listed(words []string) model.Value { return model.List(words) }

// Read returns what the instance has told, whatever the scope names. What is in force no longer has no servers; what somebody else has
// changed is taken.
func (k *Kernel) Read(ctx context.Context, _ model.Scope) (*model.System, error) {
	s := &model.System{Objects: map[model.ID]*model.Object{}}
	list, err := k.store.read()
	if err != nil {
		return nil, &setup.OpError{Op: "read", Item: "what was told of name servers", Err: err}
	}
	for _, r := range list {
		o := (*model.Object)(nil)
		switch r.By {
		case byResolved:
			o = k.lookResolved(ctx, r)
		case byResolvconf:
			o = k.lookResolvconf(r)
		default:
			if o, err = k.lookFile(r); err != nil {
				return nil, &setup.OpError{Op: "read", Item: r.Path, Err: err}
			}
		}
		s.Objects[r.ID] = o
	}
	return s, nil
}

// Do carries out one step (see [apply.Kernel]).
func (k *Kernel) Do(ctx context.Context, step *plan.Step) (done apply.Done, err error) {
	r, err := k.store.find(step.ID)
	switch {
	case err != nil:
	case step.ID.Kind() != model.KindDNS:
		err = errors.ErrUnsupported
	case step.Op == plan.Delete && r == nil:
	case step.Op == plan.Delete:
		err = k.unset(ctx, r)
	case step.Op == plan.Create && r != nil:
		err = os.ErrExist
	case step.Op == plan.Create:
		err = k.create(ctx, step)
	case r == nil:
		err = os.ErrNotExist
	default:
		err = k.change(ctx, r, step.Changes)
	}
	if err == nil {
		return done, nil
	}
	op := &setup.OpError{Op: string(step.Op) + " dns", Item: step.ID.Rest(), Err: err}
	if h, ok := errors.AsType[*hintError](err); ok {
		op.Hint = h.hint
	}
	return done, op
}

func (k *Kernel) create(ctx context.Context, step *plan.Step) error {
	r := &record{ID: step.ID, By: string(step.Fields["resolver"]), Servers: step.Fields["servers"].List(), Domains: step.Fields["domains"].List()}
	ref := step.ID.Link()
	if r.By == "" {
		r.By = k.choose(ctx, ref)
	}
	if r.By == byFile {
		if err := k.place(r, ref); err != nil {
			return err
		}
	}
	err := k.set(ctx, r)
	if err != nil && r.By != byFile { // whose way cleans up behind itself, and keeps its record where it cannot
		return errors.Join(err, k.store.remove(r.ID))
	}
	if err != nil && !k.isWritten(r) {
		return errors.Join(err, k.store.remove(r.ID))
	}
	return err
}

// isWritten reports whether a file still has what was written.
func (k *Kernel) isWritten(r *record) bool {
	now, err := examine(r.Path)
	return err != nil || r.isOurs(now)
}

// place chooses the file.
func (k *Kernel) place(r *record, ref model.Ref) error {
	r.Path = filepath.Join(k.root(), resolvConf)
	if netns := ref.Netns(); netns != "" {
		r.Path = filepath.Join(k.root(), "etc/netns", netns, "resolv.conf")
		return nil
	}
	if k.o.Apart() && k.isShared() {
		return hinted(fmt.Errorf("%s is that of the whole machine, and culvert runs in a network namespace apart", r.Path),
			"make /etc/netns/NAME/resolv.conf, which ip netns exec mounts in its place, or say resolver: off")
	}
	return nil
}

// isShared reports whether the resolv.conf here is that of the machine's first process.
func (k *Kernel) isShared() bool {
	first := filepath.Join(k.o.First, k.root())
	for _, name := range []string{resolvConf, filepath.Dir(resolvConf)} {
		a, errA := os.Stat(filepath.Join(k.root(), name))
		b, errB := os.Stat(filepath.Join(first, name))
		if errA == nil && errB == nil {
			return os.SameFile(a, b)
		}
		if (errA == nil) != (errB == nil) {
			return false
		}
	}
	return true
}

// choose finds the first way that the machine has.
func (k *Kernel) choose(ctx context.Context, ref model.Ref) string {
	if ref.Netns() != "" || k.o.Apart() {
		return byFile
	}
	if k.usesResolved() {
		if c, err := k.openResolved(ctx); err == nil {
			defer c.close()
			if c.answers() {
				return byResolved
			}
		}
	}
	if path, err := k.o.Program("resolvconf"); err == nil && !isResolvectl(path) {
		return byResolvconf
	}
	return byFile
}

func (k *Kernel) set(ctx context.Context, r *record) error {
	switch ref := r.ID.Link(); r.By {
	case byResolved:
		return k.setResolved(ctx, r, ref)
	case byResolvconf:
		return k.setResolvconf(ctx, r, ref.Name())
	case byFile:
		return k.setFile(r, ref.Name())
	}
	return fmt.Errorf("%q is none of resolved, resolvconf, file", r.By)
}

func (k *Kernel) change(ctx context.Context, r *record, changes []plan.FieldChange) error {
	before := *r
	for _, c := range changes {
		switch c.Field {
		case "servers":
			r.Servers = c.New.List()
		case "domains":
			r.Domains = c.New.List()
		}
	}
	err := k.set(ctx, r)
	if err != nil {
		err = errors.Join(err, k.set(ctx, &before))
	}
	return err
}

func (k *Kernel) unset(ctx context.Context, r *record) error {
	var err error
	switch r.By {
	case byResolved:
		err = k.unsetResolved(ctx, r.ID.Link())
	case byResolvconf:
		err = k.unsetResolvconf(ctx, r)
	case byFile:
		err = k.unsetFile(r)
	}
	if err != nil {
		return err
	}
	return k.store.remove(r.ID)
}

// Underlay are the servers that the machine asks without the instance's tunnels: those of the resolv.conf that was there before, those
// systemd-resolved has of other links, and those of resolv.conf, each once and none of the tunnels'. Loopback addresses, at which
// something on the machine only passes questions on, are left out.
func (k *Kernel) Underlay() (list []netip.Addr) {
	var texts, own []string
	records, _ := k.store.read()
	for _, r := range records {
		own = append(own, r.Servers...)
		if r.By != byFile || r.ID.Netns() != "" {
			continue
		}
		text := r.Original.Text
		if t := r.Original.Target; t != "" {
			if !filepath.IsAbs(t) {
				t = filepath.Join(filepath.Dir(r.Path), t)
			}
			if now, err := readFile(filepath.Join(k.o.Root, t)); err == nil {
				text = now
			}
		}
		texts = append(texts, text)
	}
	for _, path := range []string{"run/systemd/resolve/resolv.conf", resolvConf} {
		text, _ := readFile(filepath.Join(k.root(), path))
		texts = append(texts, text)
	}
	for _, text := range texts {
		for _, a := range servers(text) {
			if !a.IsLoopback() && !slices.Contains(list, a) && !slices.Contains(own, a.String()) {
				list = append(list, a)
			}
		}
	}
	return list
}

// hintError is an error with what to do about it.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

func hinted(err error, hint string) error { return &hintError{err, hint} }
