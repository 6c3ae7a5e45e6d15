package transport

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// routeGroups are the multicast groups whose news can move a route. Next-hop objects change routes without a word
// in the route groups.
const routeGroups = 1<<(unix.RTNLGRP_LINK-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1) |
	1<<(unix.RTNLGRP_NEXTHOP-1)

// routeWatch signals changes of links, addresses, routes and rules.
type routeWatch struct {
	file    *os.File
	changes chan struct{}
	running sync.WaitGroup
}

func openRouteWatch() (*routeWatch, error) {
	fd, err := openNetlink(unix.SOCK_NONBLOCK, routeGroups)
	if err != nil {
		return nil, err
	}
	w := &routeWatch{file: os.NewFile(uintptr(fd), "netlink"), changes: make(chan struct{}, 1)}
	w.running.Go(w.run)
	return w, nil
}

// close ends the watch and waits until its goroutine is gone.
func (w *routeWatch) close() {
	w.file.Close()
	w.running.Wait()
}

// run signals for whatever comes; what exactly has changed does not matter, and messages lost to a full buffer
// (ENOBUFS) are news just the same.
func (w *routeWatch) run() {
	buf := make([]byte, 8192)
	for {
		if _, err := w.file.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		select {
		case w.changes <- struct{}{}:
		default:
		}
	}
}
