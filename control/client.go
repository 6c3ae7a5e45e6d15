package control

import (
	"bufio"
	"context"
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

// How long operations may take where the caller's context ends no earlier.
const (
	dialTime   = 5 * time.Second
	statusTime = 15 * time.Second
	changeTime = 60 * time.Second // of what changes something
)

// Client asks a running instance. It holds no connection, each operation makes one of its own, so it needs no closing and may be used by many
// goroutines; an instance that was restarted in between is found again.
//
// Errors of its methods: [ErrNotRunning] where no process serves the instance, fs.ErrPermission where the caller is not served,
// [*Error] for what the daemon reports, errors.ErrUnsupported where it is of a version that does not have the operation (by errors.Is), the
// context's cause when that ends. A daemon does what it has begun to do also when the caller's context ends.
type Client struct{ dir, name string }

// NewClient makes a client of the instance called name, whose socket is in the run directory dir, mostly /run/culvert. It asks nothing yet.
func NewClient(dir, name string) *Client { return &Client{dir, name} }

// Name is the instance's name.
func (c *Client) Name() string { return c.name }

// Hello asks the daemon what it is, and which operations it has. Daemons that speak other versions of the API answer it as well.
func (c *Client) Hello(ctx context.Context) (Daemon, error) {
	resp, err := c.patiently(ctx, OpHello)
	if err == nil && resp.Daemon == nil {
		err = errors.New("the daemon's answer does not say what it is")
	}
	if err != nil {
		return Daemon{}, err
	}
	return *resp.Daemon, nil
}

// Status asks the instance for its status.
func (c *Client) Status(ctx context.Context) (Instance, error) {
	resp, err := c.patiently(ctx, OpStatus)
	if err == nil && resp.Instance == nil {
		err = errors.New("the daemon's answer holds no status")
	}
	if err != nil {
		return Instance{}, err
	}
	return *resp.Instance, nil
}

// patiently asks what changes nothing, so that it can be asked again.
func (c *Client) patiently(ctx context.Context, op string) (response, error) {
	resp, err := c.call(ctx, request{Op: op}, statusTime)
	for range 100 {
		if !errors.Is(err, errNoAnswer) || ctx.Err() != nil {
			break
		}
		// Most likely the kernel is just clearing a killed daemon away.
		time.Sleep(10 * time.Millisecond)
		resp, err = c.call(ctx, request{Op: op}, statusTime)
	}
	return resp, err
}

// Reload makes the instance read its configuration file again, and returns the daemon's remarks, also where it fails.
func (c *Client) Reload(ctx context.Context) (remarks []string, err error) {
	resp, err := c.call(ctx, request{Op: OpReload}, changeTime)
	return resp.Remarks, err
}

// Preview has the instance read its configuration file again and say what Reload would do; nothing is changed.
func (c *Client) Preview(ctx context.Context) (*ReloadPlan, error) {
	resp, err := c.call(ctx, request{Op: OpPreview}, changeTime)
	if err == nil && resp.Preview == nil {
		err = errors.New("the daemon's answer does not say what it would do")
	}
	return resp.Preview, err
}

// Down ends the instance and returns when its process is gone.
func (c *Client) Down(ctx context.Context) error {
	_, err := c.call(ctx, request{Op: OpDown}, changeTime)
	return err
}

// Confirm keeps the change that the instance has on trial.
func (c *Client) Confirm(ctx context.Context) error {
	_, err := c.call(ctx, request{Op: OpConfirm}, changeTime)
	return err
}

// Clients asks the instance about the clients of a tunnel that is a server, or has them changed.
func (c *Client) Clients(ctx context.Context, r ClientsRequest) (*ClientsAnswer, error) {
	resp, err := c.call(ctx, request{Op: OpClients, Clients: &r}, changeTime)
	if err == nil && resp.Clients == nil {
		err = errors.New("the daemon's answer holds nothing about clients")
	}
	return resp.Clients, err
}

// SignIn asks the instance how far the sign-in of a tunnel that is a client is, or does a step of it. The answer is nil where the server has
// asked for nothing.
func (c *Client) SignIn(ctx context.Context, r SignInRequest) (*SignIn, error) {
	resp, err := c.call(ctx, request{Op: OpSignIn, SignIn: &r}, signInTime+10*time.Second)
	return resp.SignIn, err
}

// call sends one request and reads the answer. Where another process has gone on with the instance meanwhile, that one is asked.
func (c *Client) call(ctx context.Context, r request, limit time.Duration) (response, error) {
	resp, err := c.callOnce(ctx, r, limit)
	for range 3 {
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Reason != ReasonMoved || r.Op == OpUpgrade || ctx.Err() != nil {
			break
		}
		resp, err = c.callOnce(ctx, r, limit)
	}
	return resp, err
}

func (c *Client) callOnce(ctx context.Context, r request, limit time.Duration) (response, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return response{}, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	defer interrupt(ctx, conn)()
	resp, err := ask(ctx, conn, bufio.NewReader(conn), r, limit)
	if r.Op == OpDown && resp.Version == Version {
		// End of file is the end of the process.
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			if ctx.Err() != nil {
				return resp, context.Cause(ctx)
			}
			return resp, fmt.Errorf("the daemon did not end within %v", limit)
		}
	}
	return resp, err
}

// interrupt has a connection's waiting end with ctx, until the returned function is called.
func interrupt(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
}

// ask sends a request over conn and reads the answer's line from r.
func ask(ctx context.Context, conn net.Conn, r *bufio.Reader, req request, limit time.Duration) (response, error) {
	wrong := func(err error) (response, error) {
		if ctx.Err() != nil {
			return response{}, context.Cause(ctx)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return response{}, fmt.Errorf("the daemon did not answer within %v", limit)
		}
		return response{}, fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	req.Version = Version
	out, err := json.Marshal(req)
	if err != nil {
		return response{}, err
	}
	// A daemon that turns its caller away may have closed before it has read: its answer counts.
	_, writing := conn.Write(append(out, '\n'))
	line, err := readLine(r, maxResponse)
	if err != nil {
		return wrong(errors.Join(writing, err))
	}
	var resp response
	if err := json.Unmarshal(line, &resp); err != nil {
		return response{}, fmt.Errorf("cannot understand the daemon's answer: %w", err)
	}
	if err := resp.failure(); err != nil {
		return resp, err
	}
	if resp.Version != Version && req.Op != OpHello {
		return response{}, &Error{Text: fmt.Sprintf("the running daemon answers in version %d of the control protocol, and this program speaks version %d",
			resp.Version, Version), Code: 1, Reason: ReasonVersion}
	}
	resp.complete(line, time.Now())
	return resp, nil
}

// dial connects to the instance.
func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	if !ValidName(c.name) {
		return nil, fmt.Errorf("%q cannot be the name of an instance", c.name)
	}
	d := net.Dialer{Timeout: dialTime}
	conn, err := d.DialContext(ctx, "unix", SocketPath(c.dir, c.name))
	switch {
	case err == nil:
		return conn.(*net.UnixConn), nil
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNotRunning
	case errors.Is(err, syscall.EAGAIN): // the queue of those who wait to be accepted is full (unix(7))
		return nil, fmt.Errorf("%w: %w", ErrBusy, err)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, err
}

// List asks all instances that run for their status, in order of their names. Where some fail it returns the others, and an error.
func List(ctx context.Context, dir string) ([]Instance, error) {
	names, err := Names(dir)
	if err != nil {
		return nil, err
	}
	var list []Instance
	var errs []error
	for _, name := range names {
		in, err := NewClient(dir, name).Status(ctx)
		switch {
		case errors.Is(err, ErrNotRunning):
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		default:
			list = append(list, in)
		}
	}
	return list, errors.Join(errs...)
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

// readLine reads up to a newline, at most limit bytes before it. What comes behind the newline stays in r.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil && len(line) <= limit+1:
			return line[:len(line)-1], nil
		case len(line) > limit:
			return nil, fmt.Errorf("longer than %d bytes", limit)
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
