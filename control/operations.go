package control

import (
	"context"
	"errors"
	"slices"
)

// operation is one that a daemon may have.
type operation struct {
	name string
	// has reports whether a service has it; nil: each does.
	has func(Service) bool
	// answer does it, and completes the response.
	answer func(ctx context.Context, s Service, req *request, resp *response) error
	// begin is in its place where a stream follows the response.
	begin func(l *Listener, s Service, req *request) (stream, error)
}

func hasA[T any](s Service) bool {
	_, ok := s.(T)
	return ok
}

// operations are all there are, but for "hello", which is the listener's own.
var operations = []operation{
	{name: OpStatus, answer: func(_ context.Context, s Service, _ *request, resp *response) error {
		in := s.Status()
		resp.Instance = &in
		return nil
	}},
	{name: OpReload, answer: func(ctx context.Context, s Service, _ *request, resp *response) (err error) {
		resp.Remarks, err = s.Reload(ctx)
		return err
	}},
	{name: OpPreview, has: hasA[Previewer], answer: func(ctx context.Context, s Service, _ *request, resp *response) (err error) {
		if p, ok := s.(Previewer); ok {
			resp.Preview, err = p.Preview(ctx)
			return err
		}
		return errors.New("this daemon has no file to read again")
	}},
	{name: OpDown, answer: func(ctx context.Context, s Service, _ *request, _ *response) error { return s.Down(ctx) }},
	{name: OpConfirm, has: hasA[Confirmer], answer: func(_ context.Context, s Service, _ *request, _ *response) error {
		if c, ok := s.(Confirmer); ok {
			return c.Confirm()
		}
		return errors.New("no change waits to be confirmed")
	}},
	{name: OpCapture, has: hasA[Capturer], begin: func(l *Listener, s Service, req *request) (stream, error) { return l.beginCapture(req.Capture, s) }},
	{name: OpEvents, has: hasA[EventSource], begin: func(l *Listener, s Service, req *request) (stream, error) { return l.beginEvents(req.Events, s) }},
	{name: OpLog, has: hasA[Logger], answer: func(_ context.Context, s Service, req *request, resp *response) (err error) {
		resp.Log, err = answerLog(s, req.Log)
		return err
	}},
	{name: OpClients, has: hasA[ClientKeeper], answer: func(_ context.Context, s Service, req *request, resp *response) (err error) {
		resp.Clients, err = keepClients(s, req.Clients)
		return err
	}},
	{name: OpSignIn, has: hasA[Signer], answer: func(ctx context.Context, s Service, req *request, resp *response) (err error) {
		resp.SignIn, err = signIn(ctx, s, req.SignIn)
		return err
	}},
	{name: OpUpgrade, has: hasA[Upgrader], answer: func(ctx context.Context, s Service, req *request, resp *response) (err error) {
		resp.Upgraded, err = upgrade(ctx, s, req.Upgrade)
		return err
	}},
}

func find(op string) *operation {
	if i := slices.IndexFunc(operations, func(o operation) bool { return o.name == op }); i >= 0 {
		return &operations[i]
	}
	return nil
}

func known(op string) bool { return op == OpHello || find(op) != nil }

// Daemon is what a daemon says of itself.
type Daemon struct {
	Instance   string   `json:"instance"`   // its name
	Program    string   `json:"program"`    // the build, as "culvert version" prints it
	PID        int      `json:"pid"`        // of its process
	Versions   []int    `json:"versions"`   // of the API, which it speaks
	Operations []string `json:"operations"` // which it has, sorted
}

// operationsOf are the names of a service's operations, sorted.
func operationsOf(s Service) []string {
	names := []string{OpHello}
	for i := range operations {
		if has := operations[i].has; has == nil || has(s) {
			names = append(names, operations[i].name)
		}
	}
	slices.Sort(names)
	return names
}
