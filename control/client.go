package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrNotRunning means that no process serves the instance.
var ErrNotRunning = errors.New("not running")

var errNoAnswer = errors.New("the daemon closed the connection without an answer")

// Status asks the instance for its status.
func Status(dir, name string) (Instance, error) {
	resp, err := call(dir, name, OpStatus, 15*time.Second)
	for range 100 {
		if !errors.Is(err, errNoAnswer) {
			break
		}
		// Most likely the kernel is just clearing a killed daemon away.
		time.Sleep(10 * time.Millisecond)
		resp, err = call(dir, name, OpStatus, 15*time.Second)
	}
	if err != nil {
		return Instance{}, err
	}
	if resp.Instance == nil {
		return Instance{}, errors.New("the daemon's answer holds no status")
	}
	return *resp.Instance, nil
}

// Reload makes the instance read its configuration file again, and returns the daemon's remarks.
func Reload(dir, name string) ([]string, error) {
	resp, err := call(dir, name, OpReload, 60*time.Second)
	return resp.Remarks, err
}

// Down ends the instance and returns when its process is gone.
func Down(dir, name string) error {
	_, err := call(dir, name, OpDown, 60*time.Second)
	return err
}

// Confirm keeps the change that the instance has on trial.
func Confirm(dir, name string) error {
	_, err := call(dir, name, OpConfirm, 60*time.Second)
	return err
}

// call sends one request and reads the answer. Failures of the daemon are of type *Error.
func call(dir, name, op string, limit time.Duration) (response, error) {
	return exchange(dir, name, request{Version: Version, Op: op}, limit)
}

func exchange(dir, name string, r request, limit time.Duration) (response, error) {
	c, err := dial(dir, name)
	if err != nil {
		return response{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit))
	out, err := json.Marshal(r)
	if err != nil {
		return response{}, err
	}
	if _, err := c.Write(append(out, '\n')); err != nil {
		return response{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	line, err := readLine(c, maxResponse)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return response{}, fmt.Errorf("the daemon did not answer within %v", limit)
		}
		return response{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	var resp response
	if err := json.Unmarshal(line, &resp); err != nil {
		return response{}, fmt.Errorf("cannot understand the daemon's answer: %w", err)
	}
	if r.Op == OpDown {
		// End of file is the end of the process.
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			return resp, fmt.Errorf("the daemon did not end within %v", limit)
		}
	}
	if resp.Error != "" {
		return resp, &Error{Text: resp.Error, Code: max(resp.Code, 1)}
	}
	if resp.Version != Version {
		return response{}, fmt.Errorf("the running daemon speaks version %d of the control protocol, this command version %d", resp.Version, Version)
	}
	return resp, nil
}

// dial connects to the instance. Errors: ErrNotRunning.
func dial(dir, name string) (*net.UnixConn, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%q cannot be the name of an instance", name)
	}
	c, err := net.DialTimeout("unix", SocketPath(dir, name), 5*time.Second)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, ErrNotRunning
		}
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// Names lists the instances with a socket and a lock in dir, sorted. Some may be stale. A socket without a lock is something else's, as one at
// which a device is handed over: to call there could take it away.
func Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".sock"); ok && e.Type()&os.ModeSocket != 0 && ValidName(name) {
			if _, err := os.Lstat(lockPath(dir, name)); err == nil {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}
