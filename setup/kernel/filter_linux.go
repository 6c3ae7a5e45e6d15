package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/rtnl"
)

// cookie marks an action as culvert's (TCA_ACT_COOKIE); it differs from that of ports of virtual machines, which their own process
// takes away.
var cookie = []byte("culvert-setup")

func isOurs(f rtnl.Filter) bool { return f.Redirect != nil && bytes.Equal(f.Redirect.Cookie, cookie) }

// filterHandle is a u32 classifier's handle as tc(8) writes it: table, bucket and node, the empty text for 0.
func filterHandle(h uint32) model.Value {
	part := func(n uint32) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatUint(uint64(n), 16)
	}
	return model.Text(part(h>>20) + ":" + part(h>>12&0xff) + ":" + part(h&0xfff))
}

func parseFilterHandle(v model.Value) (uint32, error) {
	parts := strings.Split(string(v), ":")
	var n [3]uint64
	for i, part := range parts {
		if i >= len(n) {
			break
		}
		if part == "" {
			continue
		}
		var err error
		if n[i], err = strconv.ParseUint(part, 16, 12); err != nil {
			return 0, fmt.Errorf("handle %q: %w", v, err)
		}
	}
	if len(parts) != len(n) || n[1] > 0xff {
		return 0, fmt.Errorf("%q is not a handle such as 800::800: %w", v, unix.EINVAL)
	}
	return uint32(n[0]<<20 | n[1]<<12 | n[2]), nil
}

// filterFields are those of a classifier; devices are the links of its namespace by index.
func filterFields(f rtnl.Filter, netns string, devices map[int]*link) model.Fields {
	fields := model.Fields{"kind": model.Text(f.Kind), "handle": model.Text(fmt.Sprintf("%#x", f.Handle))}
	if f.Kind != "u32" {
		return fields
	}
	fields["handle"] = filterHandle(f.Handle)
	switch r := f.Redirect; {
	case r == nil || !r.Everything:
		fields["kind"] = "u32 that does not redirect everything"
	default:
		fields["redirect"] = "?"
		if l := devices[r.To]; l != nil {
			fields["redirect"] = model.Link(model.NewRef(netns, l.name))
		}
	}
	return fields
}

func (w *work) redirect() (rtnl.Redirect, error) {
	words := w.step.ID.Words() // link, parent, priority
	if words[1] != "ingress" {
		return rtnl.Redirect{}, fmt.Errorf("a classifier at %s: %w", words[1], errors.ErrUnsupported)
	}
	priority, err := strconv.ParseUint(words[2], 10, 16)
	if err != nil {
		return rtnl.Redirect{}, err
	}
	r := rtnl.Redirect{Priority: uint16(priority), Cookie: cookie}
	if handle := w.step.Fields["handle"]; handle != "" {
		r.Handle, err = parseFilterHandle(handle)
	}
	return r, err
}

func createFilter(w *work) (apply.Done, error) {
	l, err := w.present()
	if err != nil {
		return apply.Done{}, err
	}
	r, err := w.redirect()
	if err != nil {
		return apply.Done{}, err
	}
	to := w.step.Fields["redirect"].Link()
	if to.Netns() != w.step.ID.Netns() {
		return apply.Done{}, fmt.Errorf("redirect to %s: it is in another namespace: %w", to, unix.EINVAL)
	}
	target, err := w.ns.linkByName(to.Name())
	if err == nil && target == nil {
		err = unix.ENODEV
	}
	if err != nil {
		return apply.Done{}, fmt.Errorf("redirect to %s: %w", to, err)
	}
	r.To = target.index
	if w.step.Foreign {
		r.Cookie = nil
	}
	return apply.Done{Index: l.index}, rtnl.AddRedirect(w.ns.conn, l.index, r)
}

func deleteFilter(w *work) (apply.Done, error) {
	l, err := w.link()
	if err != nil || l == nil {
		return apply.Done{}, err
	}
	want, err := w.redirect()
	if err != nil {
		return apply.Done{}, err
	}
	filters, err := rtnl.Filters(w.ns.conn, l.index)
	if err != nil {
		return apply.Done{}, err
	}
	for _, f := range filters {
		if f.Priority != want.Priority || want.Handle != 0 && f.Handle != want.Handle {
			continue
		}
		if !isOurs(f) && !w.step.Foreign {
			return apply.Done{}, fmt.Errorf("culvert did not make it: %w", errRefused)
		}
		want.Handle = f.Handle
		err := rtnl.DelRedirect(w.ns.conn, l.index, want)
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
		return apply.Done{}, err
	}
	return apply.Done{}, nil
}
