package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Service answers the operations. Its methods may be called concurrently.
type Service interface {
	Status() Instance
	// Reload returns remarks for the user.
	Reload(ctx context.Context) (remarks []string, err error)
	// Down asks the daemon to end and returns once everything it made is gone, with what could not be undone.
	Down(ctx context.Context) error
}

// Confirmer is a [Service] that has a change on trial.
type Confirmer interface {
	// Confirm keeps the change.
	Confirm() error
}

// Serve answers clients until Close. It is to be called once.
func (l *Listener) Serve(s Service) {
	for {
		c, err := l.sock.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(50 * time.Millisecond) // out of descriptors: others must finish first
			continue
		}
		// Who is not served takes nobody's place, also where the socket's mode has been changed.
		if err := allowed(c); err != nil {
			turnAway(c, err)
			continue
		}
		select {
		case l.slots <- struct{}{}:
			l.clients.Go(func() { l.serveOne(c, s) })
		default:
			turnAway(c, &Error{Text: fmt.Sprintf("the daemon serves %d clients already, which are the most at once: try again", maxClients), Reason: ReasonBusy})
		}
	}
}

// turnAway says why a client is not served, and closes its connection. It waits for nothing: nothing else is in the socket's buffer.
func turnAway(c *net.UnixConn, err error) {
	resp := response{Version: Version}
	resp.fail(err)
	out, _ := json.Marshal(resp)
	c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	c.Write(append(out, '\n'))
	c.Close()
}

// serveOne serves a client that has taken one of l.slots.
func (l *Listener) serveOne(c *net.UnixConn, s Service) {
	counted := true
	leave := func() {
		if counted {
			counted = false
			<-l.slots
		}
	}
	defer leave()
	down := false
	defer func() {
		if !down {
			c.Close()
			return
		}
		l.mu.Lock()
		l.held = append(l.held, c) // referenced, or the garbage collector would close it
		l.mu.Unlock()
	}()
	c.SetReadDeadline(time.Now().Add(l.patience))
	resp := response{Version: Version}
	req, err := l.readRequest(c)
	if err != nil {
		resp.fail(err)
	} else {
		switch o := find(req.Op); {
		case req.Op == OpHello:
			resp.Daemon = &Daemon{Instance: l.name, Program: l.Program, PID: os.Getpid(), Versions: []int{Version}, Operations: operationsOf(s)}
		case o == nil:
			resp.fail(unknownOperation(req.Op))
		case o.begin != nil: // streams have bounds of their own
			leave()
			l.serveStream(c, func() (stream, error) { return o.begin(l, s, req) })
			return
		default:
			down = req.Op == OpDown
			if err := o.answer(context.Background(), s, req, &resp); err != nil {
				resp.fail(err)
			}
		}
	}
	out, err := json.Marshal(resp)
	if err != nil {
		failed := response{Version: Version}
		failed.fail(fmt.Errorf("cannot encode the answer: %w", err))
		out, _ = json.Marshal(failed)
	}
	c.SetWriteDeadline(time.Now().Add(answerTime))
	c.Write(append(out, '\n'))
	// After "down" the connection is left to the end of the process: see the package comment.
}

func (l *Listener) readRequest(c *net.UnixConn) (*request, error) {
	line, err := readLine(bufio.NewReader(c), maxRequest)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("not there within %v", l.patience)
	}
	if err != nil {
		return nil, &Error{Text: "request: " + err.Error(), Reason: ReasonRequest}
	}
	return parseRequest(line)
}

// allowed refuses clients that are neither root nor the daemon's own user. The kernel says who has connected (SO_PEERCRED, unix(7)).
func allowed(c *net.UnixConn) error {
	_, uid, err := Caller(c)
	if err != nil {
		return err
	}
	if uid != 0 && uid != os.Geteuid() {
		return &Error{Text: fmt.Sprintf("uid %d may not control this daemon: only root may, and its own user", uid), Reason: ReasonRefused}
	}
	return nil
}
