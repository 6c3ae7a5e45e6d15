package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// IngressParent is where the classifiers of an ingress queueing discipline hang, and its handle (TC_H_INGRESS without a minor).
const IngressParent = 0xffff0000

// The places of queueing disciplines (linux/pkt_sched.h).
const (
	ParentRoot    = 0xffffffff // TC_H_ROOT
	ParentIngress = 0xfffffff1 // TC_H_INGRESS
)

// TC is struct tcmsg, the head of every message about traffic control.
type TC struct {
	Index  int
	Handle uint32
	Parent uint32
	Info   uint32
}

// tcLength is the length of struct tcmsg.
const tcLength = 20

// Head returns the message's head, for attributes to follow.
func (t TC) Head() *Attributes {
	b := make([]byte, tcLength)
	binary.NativeEndian.PutUint32(b[4:], uint32(t.Index))
	binary.NativeEndian.PutUint32(b[8:], t.Handle)
	binary.NativeEndian.PutUint32(b[12:], t.Parent)
	binary.NativeEndian.PutUint32(b[16:], t.Info)
	return &Attributes{b}
}

// ParseTC reads a message about traffic control; false where it is cut off.
func ParseTC(b []byte) (TC, map[uint16][]byte, bool) {
	if len(b) < tcLength {
		return TC{}, nil, false
	}
	return TC{
		Index:  int(binary.NativeEndian.Uint32(b[4:])),
		Handle: binary.NativeEndian.Uint32(b[8:]),
		Parent: binary.NativeEndian.Uint32(b[12:]),
		Info:   binary.NativeEndian.Uint32(b[16:]),
	}, Parse(b[tcLength:]), true
}

// Attributes of linux/rtnetlink.h and linux/pkt_cls.h.
const (
	tcaKind    = 1
	tcaOptions = 2

	tcaU32Sel = 5 // TCA_U32_SEL
	tcaU32Act = 7 // TCA_U32_ACT

	tcaActKind    = 1
	tcaActOptions = 2
	tcaActCookie  = 6

	tcaMirredParms = 2
)

// Redirect is a classifier at a device's ingress with one action that redirects.
type Redirect struct {
	Priority   uint16
	Handle     uint32 // of the classifier; 0 lets the kernel choose
	To         int    // index of the device whose egress takes the frames; 0 where that is gone
	Cookie     []byte // of the action, at most 16 bytes (TC_COOKIE_MAX_SIZE); none where empty
	Everything bool   // it matches every frame of every protocol
}

const (
	allProtocols   = 0x0003 // ETH_P_ALL
	u32Terminal    = 1      // TC_U32_TERMINAL
	u32KeyLength   = 16
	u32HeadLength  = 16
	mirredRedirect = 1 // TCA_EGRESS_REDIR
	actStolen      = 4 // TC_ACT_STOLEN
)

// Layout of struct tc_mirred (linux/tc_act/tc_mirred.h): seven words.
const (
	mirredAction  = 8  // what becomes of the frame
	mirredEaction = 20 // where it goes
	mirredIndex   = 24 // by which device
	mirredLength  = 28
)

// Info is the priority and protocol of a classifier as struct tcmsg has them, for all protocols.
func Info(priority uint16) uint32 {
	var protocol [2]byte
	binary.BigEndian.PutUint16(protocol[:], allProtocols)
	return uint32(priority)<<16 | uint32(binary.NativeEndian.Uint16(protocol[:]))
}

// AddIngress adds an ingress queueing discipline to a device; EEXIST where it has one, or a clsact.
func AddIngress(c *Conn, index int) error {
	a := TC{Index: index, Handle: IngressParent, Parent: ParentIngress}.Head()
	a.String(tcaKind, "ingress")
	return c.Do(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a.Bytes())
}

// DelIngress removes it with its classifiers.
func DelIngress(c *Conn, index int) error {
	a := TC{Index: index, Handle: IngressParent, Parent: ParentIngress}.Head()
	a.String(tcaKind, "ingress")
	return c.Do(unix.RTM_DELQDISC, 0, a.Bytes())
}

// AddRedirect hands every frame a device receives to another one, by a u32 classifier with an empty mask and a mirred action. The
// device needs an ingress queueing discipline.
func AddRedirect(c *Conn, index int, r Redirect) error {
	a := TC{Index: index, Handle: r.Handle, Parent: IngressParent, Info: Info(r.Priority)}.Head()
	a.String(tcaKind, "u32")
	a.Nest(tcaOptions, func(a *Attributes) {
		selector := make([]byte, u32HeadLength+u32KeyLength) // struct tc_u32_sel with one key, whose mask is empty
		selector[0], selector[2] = u32Terminal, 1
		a.Put(tcaU32Sel, selector)
		a.Nest(tcaU32Act, func(a *Attributes) {
			a.Nest(1, func(a *Attributes) {
				a.String(tcaActKind, "mirred")
				if len(r.Cookie) > 0 {
					a.Put(tcaActCookie, r.Cookie)
				}
				a.Nest(tcaActOptions, func(a *Attributes) {
					b := make([]byte, mirredLength)
					binary.NativeEndian.PutUint32(b[mirredAction:], actStolen)
					binary.NativeEndian.PutUint32(b[mirredEaction:], mirredRedirect)
					binary.NativeEndian.PutUint32(b[mirredIndex:], uint32(r.To))
					a.Put(tcaMirredParms, b)
				})
			})
		})
	})
	return c.Do(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a.Bytes())
}

// DelRedirect removes the classifier of that priority and handle.
func DelRedirect(c *Conn, index int, r Redirect) error {
	a := TC{Index: index, Handle: r.Handle, Parent: IngressParent, Info: Info(r.Priority)}.Head()
	a.String(tcaKind, "u32")
	return c.Do(unix.RTM_DELTFILTER, 0, a.Bytes())
}

// Filter is any classifier at an ingress.
type Filter struct {
	Kind     string
	Priority uint16
	Handle   uint32
	Redirect *Redirect // where it is a u32 with one action, which redirects
}

// Filters lists the classifiers at a device's ingress; none where it has no ingress, or is gone.
func Filters(c *Conn, index int) ([]Filter, error) {
	messages, err := c.Dump(unix.RTM_GETTFILTER, TC{Index: index, Parent: IngressParent}.Head().Bytes())
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Filter
	for _, m := range messages {
		head, attributes, ok := ParseTC(m)
		options := Parse(attributes[tcaOptions])
		kind := Text(attributes[tcaKind])
		if !ok || kind == "u32" && options[tcaU32Sel] == nil {
			continue // a hash table of the classifier, or its head
		}
		if kind != "u32" && head.Handle == 0 {
			continue // the head of one
		}
		f := Filter{Kind: kind, Priority: uint16(head.Info >> 16), Handle: head.Handle}
		if kind == "u32" {
			f.Redirect = parseRedirect(head, options)
		}
		list = append(list, f)
	}
	return list, nil
}

// Redirects lists those of the classifiers at a device's ingress which are redirects.
func Redirects(c *Conn, index int) (list []Redirect, err error) {
	filters, err := Filters(c, index)
	for _, f := range filters {
		if f.Redirect != nil {
			list = append(list, *f.Redirect)
		}
	}
	return list, err
}

func parseRedirect(head TC, options map[uint16][]byte) *Redirect {
	r := &Redirect{Priority: uint16(head.Info >> 16), Handle: head.Handle}
	actions := slices.Collect(func(yield func([]byte) bool) {
		for _, action := range All(options[tcaU32Act]) {
			if !yield(action) {
				return
			}
		}
	})
	if len(actions) != 1 {
		return nil
	}
	parts := Parse(actions[0])
	parameters := Parse(parts[tcaActOptions])[tcaMirredParms]
	if Text(parts[tcaActKind]) != "mirred" || len(parameters) < mirredLength ||
		binary.NativeEndian.Uint32(parameters[mirredEaction:]) != mirredRedirect {
		return nil
	}
	r.Cookie = parts[tcaActCookie]
	r.To = int(binary.NativeEndian.Uint32(parameters[mirredIndex:]))
	r.Everything = head.Info == Info(r.Priority) && matchesAll(options[tcaU32Sel])
	return r
}

// matchesAll reports whether a struct tc_u32_sel has no key whose mask has a bit, and ends the search.
func matchesAll(selector []byte) bool {
	if len(selector) < u32HeadLength || selector[0]&u32Terminal == 0 {
		return false
	}
	keys := int(selector[2])
	if len(selector) < u32HeadLength+keys*u32KeyLength {
		return false
	}
	for i := range keys {
		mask := selector[u32HeadLength+i*u32KeyLength:][:4]
		if !bytes.Equal(mask, []byte{0, 0, 0, 0}) {
			return false
		}
	}
	return true
}
