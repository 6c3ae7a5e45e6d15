//go:build !linux

package setup

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
)

// What follows takes Linux. Each says so where it is asked for.

func needsLinux(op, item string) error { return &OpError{Op: op, Item: item, Err: errNeedsLinux} }

// Namespace is a network namespace. There are none.
type Namespace struct{}

// Inherit needs Linux.
func Inherit(_ context.Context, c L3, _ bool) (*Applied, error) {
	return nil, needsLinux("go on with", c.Link)
}

// NewNamespace needs Linux.
func NewNamespace(name string) (*Namespace, error) { return nil, needsLinux("make namespace", name) }

// ReapNamespaces finds none.
func ReapNamespaces(string, func(pid int) bool) (deleted []string, err error) { return nil, nil }

// Name of a namespace.
func (*Namespace) Name() string { return "" }

// Path of a namespace.
func (*Namespace) Path() string { return "" }

// Do needs Linux.
func (*Namespace) Do(func() error) error { return needsLinux("enter a namespace", "") }

// Start needs Linux.
func (*Namespace) Start(cmd *exec.Cmd) error { return needsLinux("start in a namespace", cmd.Path) }

// PrivateMounts needs Linux.
func (*Namespace) PrivateMounts(...string) (root string, err error) {
	return "", needsLinux("give a namespace mounts of its own", "")
}

// Kill ends nothing.
func (*Namespace) Kill() error { return nil }

// Delete deletes nothing.
func (*Namespace) Delete() error { return nil }

// VethEnd is one end of a veth pair.
type VethEnd struct {
	Namespace *Namespace
	Name      string
	MAC       net.HardwareAddr
	Addresses []netip.Prefix
}

// VethPair needs Linux.
func VethPair(a, _ VethEnd, _ int) error { return needsLinux("make a veth pair", a.Name) }

// OpenFrames needs Linux.
func OpenFrames(link string, _ uint16) (*os.File, error) {
	return nil, needsLinux("read frames of", link)
}

// VMPortKind is how a virtual machine is joined.
type VMPortKind uint8

// The kinds.
const (
	VMPortMacvtap VMPortKind = iota
	VMPortTap
)

// VMPort is a device by which a virtual machine becomes the station at a tunnel's end.
type VMPort struct {
	Link, Namespace string
	Kind            VMPortKind
	Name            string
}

// ErrPortGone is what Follow returns once the port is no more.
var ErrPortGone = needsLinux("follow a port", "")

// AttachedVM is a VMPort in force. There is none.
type AttachedVM struct{}

// AttachVM needs Linux.
func AttachVM(p VMPort) (*AttachedVM, error) {
	return nil, needsLinux("join a virtual machine with", p.Link)
}

// Name needs Linux.
func (*AttachedVM) Name() (string, error) { return "", ErrPortGone }

// MTU needs Linux.
func (*AttachedVM) MTU() (int, error) { return 0, ErrPortGone }

// File is nil.
func (*AttachedVM) File() *os.File { return nil }

// Verify needs Linux.
func (*AttachedVM) Verify() error { return ErrPortGone }

// Remove removes nothing.
func (*AttachedVM) Remove() error { return nil }

// Follow needs Linux.
func (*AttachedVM) Follow(context.Context) error { return ErrPortGone }
