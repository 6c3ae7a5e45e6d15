package setup

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// markPrefix starts the alias of every VM port; the owner's process number and start time follow, in clock ticks since boot, so
// that a number given again to another process is told apart.
const markPrefix = "culvert-vm:"

func ownMark() (string, error) {
	start, ok := processStart(os.Getpid())
	if !ok {
		return "", errors.New("/proc does not show this process")
	}
	return fmt.Sprintf("%s%d:%d", markPrefix, os.Getpid(), start), nil
}

// processStart is when a process started, as in the 22nd field of proc_pid_stat(5); false for one that has ended.
func processStart(pid int) (start uint64, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// The program's name, the second field, may hold anything.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	const state, startTime = 3, 22
	if len(fields) <= startTime-state || fields[0] == "Z" || fields[0] == "X" {
		return 0, false
	}
	start, err = strconv.ParseUint(fields[startTime-state], 10, 64)
	return start, err == nil
}

// ownerGone reports whether an alias is a port's whose owner has ended.
func ownerGone(alias string) bool {
	rest, ok := strings.CutPrefix(alias, markPrefix)
	if !ok {
		return false
	}
	number, ticks, _ := strings.Cut(rest, ":")
	pid, err := strconv.Atoi(number)
	start, startErr := strconv.ParseUint(ticks, 10, 64)
	if err != nil || startErr != nil || pid <= 0 {
		return false // not one of ours, whatever it looks like
	}
	now, alive := processStart(pid)
	return !alive || now != start
}

// markedLink finds the link of that index and mark. Its error is gone's where there is none, or the index has passed to another.
func markedLink(index int, mark string) (netlink.Link, error) {
	link, err := netlink.LinkByIndex(index)
	if err == nil && link.Attrs().Alias != mark {
		err = unix.ENODEV
	}
	if err != nil {
		return nil, &OpError{Op: "find the VM port with index", Item: strconv.Itoa(index), Err: err}
	}
	return link, nil
}

func deleteMarked(index int, mark string) error {
	link, err := markedLink(index, mark)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// ReapVMPorts removes the VM ports of a namespace (a file, or "" for the calling thread's) whose owner was killed. It returns
// their names.
func ReapVMPorts(namespace string) (removed []string, err error) {
	netns, err := openNetns(namespace)
	if err != nil {
		return nil, &OpError{Op: "reap VM ports", Err: err}
	}
	defer unix.Close(netns)
	err = inNamespace(netns, func() error {
		unlock, err := lockNamespace()
		if err != nil {
			return &OpError{Op: "reap VM ports", Err: err}
		}
		defer unlock()
		removed, err = reapVMPorts()
		return err
	})
	return removed, err
}

// reapVMPorts acts in the thread's namespace, whose lock is held: no other process is half-way through making a port.
func reapVMPorts() (removed []string, err error) {
	links, err := dumped(netlink.LinkList)
	if err != nil {
		return nil, &OpError{Op: "list links", Err: err}
	}
	there := make(map[int]bool)
	for _, l := range links {
		there[l.Attrs().Index] = true
	}
	var errs []error
	for _, l := range links {
		attrs := l.Attrs()
		// A macvtap that is not marked yet has our group and mode all the same; a tap that is not marked goes by itself.
		m, isMacvtap := l.(*netlink.Macvtap)
		unfinished := isMacvtap && m.Mode == netlink.MACVLAN_MODE_PASSTHRU && attrs.Group == LinkGroup && attrs.Alias == ""
		if unfinished || ownerGone(attrs.Alias) {
			there[attrs.Index] = false
		}
	}
	for _, l := range links {
		attrs := l.Attrs()
		if !mayHaveIngress(l) || !there[attrs.Index] {
			continue // its own rules go with it
		}
		// Before the port: a rule that leads to a device that is no more swallows everything.
		dropped, err := dropRedirects(attrs.Index, attrs.Name, func(to int) bool { return !there[to] })
		if err == nil && dropped {
			err = dropEmptyIngress(attrs.Index, attrs.Name)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	for _, l := range links {
		attrs := l.Attrs()
		if there[attrs.Index] {
			continue
		}
		if err := netlink.LinkDel(l); err != nil && !gone(err) {
			errs = append(errs, &OpError{Op: "delete link", Item: attrs.Name, Err: err, Hint: permissionHint(err)})
			continue
		}
		removed = append(removed, attrs.Name)
	}
	return removed, errors.Join(errs...)
}

// mayHaveIngress reports whether a link is of the kind ports are joined with.
func mayHaveIngress(l netlink.Link) bool {
	_, ok := l.(*netlink.Tuntap)
	return ok
}

// silenceIPv6 keeps the host from speaking IPv6 on a link.
func silenceIPv6(index int, name string) error {
	err := os.WriteFile(ipv6OffSysctl(name), []byte("1"), 0)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil // also where the kernel has no IPv6
	}
	// As in containers, where /proc/sys may be read-only: at least no address makes itself.
	return setNoAddressGeneration(index)
}
