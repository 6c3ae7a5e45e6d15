package transport

import (
	"errors"
	"os"
	"sync"
	"time"

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
	w := newRouteWatch(fd)
	w.running.Go(w.run)
	return w, nil
}

func newRouteWatch(fd int) *routeWatch {
	return &routeWatch{file: os.NewFile(uintptr(fd), "netlink"), changes: make(chan struct{}, 1)}
}

// close ends the watch and waits until its goroutine is gone.
func (w *routeWatch) close() {
	w.file.Close()
	w.running.Wait()
}

// run signals for whatever comes; what exactly has changed does not matter, and messages lost to a full buffer
// (ENOBUFS) are news just the same. So is any other error, since something may have been missed; where it stays, the pause bounds
// what is looked at because of it.
func (w *routeWatch) run() {
	buf := make([]byte, 8192)
	for {
		switch _, err := w.file.Read(buf); {
		case err == nil, errors.Is(err, unix.ENOBUFS):
		case errors.Is(err, os.ErrClosed):
			return
		default:
			time.Sleep(lastReceivePause)
		}
		select {
		case w.changes <- struct{}{}:
		default:
		}
	}
}
