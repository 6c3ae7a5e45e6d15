package setup

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/setup/rtnl"
)

// A cross-connection hands every frame that comes in by one device out by the other: an ingress queueing discipline on
// each, with one u32 classifier that matches everything and one mirred action that redirects. The host's own stack sees none of
// them. The actions carry redirectCookie, by which they are known as culvert's.

// end is one of two devices.
type end struct {
	index int
	name  string
}

// redirectCookie is the TCA_ACT_COOKIE of culvert's redirects, at most 16 bytes (TC_COOKIE_MAX_SIZE).
var redirectCookie = []byte("culvert-vm")

const redirectPriority = 1

// here runs f with a netlink socket in the namespace of the calling thread.
func here(f func(*rtnl.Conn) error) error {
	c, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// crossConnect joins two devices and notes the inverse of each step.
func crossConnect(steps *journal, a, b end) error {
	for _, way := range [][2]end{{a, b}, {b, a}} {
		if err := redirect(steps, way[0], way[1]); err != nil {
			return err
		}
	}
	return nil
}

// redirect sends what comes in by from out by to.
func redirect(steps *journal, from, to end) error {
	made, err := addIngress(from)
	if err != nil {
		return err
	}
	item := from.name + " to " + to.name
	steps.add("delete redirect", item, func() error {
		_, err := dropRedirects(from.index, from.name, func(index int) bool { return index == to.index || index == 0 })
		if err != nil || !made {
			return err
		}
		return dropEmptyIngress(from.index, from.name)
	})
	err = here(func(c *rtnl.Conn) error {
		return rtnl.AddRedirect(c, from.index, rtnl.Redirect{Priority: redirectPriority, To: to.index, Cookie: redirectCookie})
	})
	if err != nil {
		return &OpError{Op: "redirect frames of", Item: item, Err: err,
			Hint: missingHint(err, "CONFIG_NET_CLS_U32, CONFIG_NET_CLS_ACT and CONFIG_NET_ACT_MIRRED", "cls_u32", "act_mirred")}
	}
	return nil
}

// addIngress adds an ingress queueing discipline. One that is there and does nothing is used; made says whose it is.
func addIngress(on end) (made bool, err error) {
	err = here(func(c *rtnl.Conn) error { return rtnl.AddIngress(c, on.index) })
	if err == nil {
		return true, nil
	}
	if errors.Is(err, unix.EEXIST) {
		filters, listErr := ingressFilters(on.index)
		if listErr != nil {
			return false, listErr
		}
		if len(filters) == 0 {
			return false, nil
		}
		return false, &OpError{Op: "add ingress qdisc on", Item: on.name,
			Err:  fmt.Errorf("there is one with classifiers already: %w", err),
			Hint: "look at it with tc filter show dev " + on.name + " ingress"}
	}
	return false, &OpError{Op: "add ingress qdisc on", Item: on.name, Err: err,
		Hint: missingHint(err, "CONFIG_NET_SCH_INGRESS", "sch_ingress")}
}

// ingressFilters lists the classifiers at a device's ingress; none where the device is gone.
func ingressFilters(index int) (list []rtnl.Filter, err error) {
	err = here(func(c *rtnl.Conn) error {
		list, err = rtnl.Filters(c, index)
		return err
	})
	if err != nil {
		return nil, &OpError{Op: "list the classifiers at the ingress of link", Item: fmt.Sprint(index), Err: err}
	}
	return list, nil
}

// ingressRedirects lists culvert's redirects among them.
func ingressRedirects(index int) (list []rtnl.Redirect, err error) {
	filters, err := ingressFilters(index)
	for _, f := range filters {
		if f.Redirect != nil && bytes.Equal(f.Redirect.Cookie, redirectCookie) {
			list = append(list, *f.Redirect)
		}
	}
	return list, err
}

// redirectsTo reports whether everything that comes in by from goes out by to.
func redirectsTo(from, to int) (bool, error) {
	list, err := ingressFilters(from)
	if err != nil || len(list) != 1 || list[0].Redirect == nil {
		return false, err
	}
	r := list[0].Redirect
	return r.Everything && r.To == to && bytes.Equal(r.Cookie, redirectCookie), nil
}

// dropRedirects removes culvert's redirects to devices that match, and says whether there were any. The ingress queueing
// discipline stays.
func dropRedirects(index int, name string, match func(to int) bool) (dropped bool, err error) {
	list, err := ingressRedirects(index)
	if err != nil {
		return false, err
	}
	for _, r := range list {
		if !match(r.To) {
			continue
		}
		err := here(func(c *rtnl.Conn) error { return rtnl.DelRedirect(c, index, r) })
		if err != nil && !gone(err) {
			return dropped, &OpError{Op: "delete redirect of", Item: name, Err: err, Hint: permissionHint(err)}
		}
		dropped = true
	}
	return dropped, nil
}

// dropEmptyIngress removes the ingress queueing discipline unless it has classifiers.
func dropEmptyIngress(index int, name string) error {
	qdiscs, err := dumped(func() ([]netlink.Qdisc, error) { return netlink.QdiscList(device(index)) })
	if err != nil && !gone(err) {
		return &OpError{Op: "list queueing disciplines of", Item: name, Err: err}
	}
	if !slices.ContainsFunc(qdiscs, func(q netlink.Qdisc) bool { return q.Type() == "ingress" }) {
		return nil
	}
	filters, err := ingressFilters(index)
	if err != nil || len(filters) != 0 {
		return err
	}
	return delIngress(index, name)
}

func delIngress(index int, name string) error {
	err := here(func(c *rtnl.Conn) error { return rtnl.DelIngress(c, index) })
	if err != nil && !gone(err) {
		return &OpError{Op: "delete ingress qdisc of", Item: name, Err: err, Hint: permissionHint(err)}
	}
	return nil
}
