package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// serve answers until the socket is closed.
func (s *supervisor) serve() {
	for {
		c, err := s.socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.Log.Warn(err.Error())
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go s.answer(c)
	}
}

// answer answers one request. The connection on which the last thing was left is not closed: its end is that of the process.
func (s *supervisor) answer(c net.Conn) {
	reply := s.reply(c)
	reply.Version, reply.PID, reply.Inode = protocol, os.Getpid(), s.inode
	stuck := time.AfterFunc(stopLimit, func() { c.Close() })
	err := json.NewEncoder(c).Encode(reply)
	if err != nil {
		s.Log.Warn("cannot answer", "error", err)
	}
	if stuck.Stop(); reply.Ending {
		close(s.end)
		return
	}
	c.Close()
	s.idle.Reset(linger)
}

func (s *supervisor) reply(c net.Conn) response {
	if err := admit(c); err != nil {
		return response{Error: err.Error()}
	}
	stuck := time.AfterFunc(stopLimit, func() { c.Close() })
	q, err := readRequest(c)
	stuck.Stop()
	if err != nil {
		return response{Error: err.Error()}
	}
	// Also who only looks waits for what is under way: whoever asked for it may have been killed, and what is planned without it would be
	// in its way.
	s.work.Lock()
	defer s.work.Unlock()
	if q.Op == opList {
		return response{Kept: s.list()}
	}
	s.mu.Lock()
	ending := s.ending
	s.mu.Unlock()
	if ending {
		return response{Retry: true}
	}
	if q.Op == opKeep {
		status, err := s.keep(&q)
		if err != nil {
			return response{Error: err.Error(), Ending: s.isIdle()}
		}
		return response{Kept: []Status{status}}
	}
	if err := s.leave(q.ID); err != nil {
		return response{Error: err.Error()}
	}
	return response{Ending: s.isIdle()}
}

// admit lets root and the supervisor's own user ask.
func admit(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not ask", peer.Uid)
	}
	return nil
}

// isIdle says whether nothing is kept, and if so lets nothing begin any more.
func (s *supervisor) isIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		s.ending = true
	}
	return s.ending
}

func (s *supervisor) endIfIdle() {
	if s.work.TryLock() {
		defer s.work.Unlock()
		s.mu.Lock()
		ending := s.ending // somebody else's doing, who closes the channel
		s.mu.Unlock()
		if !ending && s.isIdle() {
			close(s.end)
		}
	}
}
