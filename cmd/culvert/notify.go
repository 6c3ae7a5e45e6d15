package main

import (
	"fmt"
	"net"
	"os"
)

// notifier tells the service manager about the daemon's state, as sd_notify(3) does: a datagram to the socket named in
// the environment.
type notifier struct{ socket string }

// takeNotifier reads NOTIFY_SOCKET and removes it from the environment, so that hooks do not speak for the daemon.
func takeNotifier() notifier {
	const name = "NOTIFY_SOCKET"
	n := notifier{os.Getenv(name)}
	os.Unsetenv(name)
	return n
}

// send sends a state such as "READY=1". Without a service manager it does nothing.
func (n notifier) send(state string) error {
	if n.socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cannot tell the service manager: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("cannot tell the service manager: %w", err)
	}
	return nil
}
