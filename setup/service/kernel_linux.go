package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"culvert/setup"
	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
	"golang.org/x/sys/unix"
)

// Kernel is the [apply.Kernel] of processes and hand-overs of one instance, and the [apply.Preflight] of the programs. It is a
// client of the instance's supervisor and keeps nothing itself.
type Kernel struct {
	client client
	store  store
}

var (
	_ apply.Kernel    = (*Kernel)(nil)
	_ apply.Locker    = (*Kernel)(nil)
	_ apply.Preflight = (*Kernel)(nil)
)

// New returns the kernel part for a state directory, an absolute path. It is made when it is needed and gone when nothing is left in
// it. supervisor returns the command that runs [Supervise] for it.
func New(dir string, supervisor func() *exec.Cmd) *Kernel {
	return &Kernel{client: client{dir, supervisor}, store: store{dir}}
}

// askLimit bounds a request: a start takes readyLimit and, where it fails, stopLimit; others may come first.
const askLimit = 2 * time.Minute

// Status returns what the instance's supervisor keeps, and what one that was killed has left.
func (k *Kernel) Status(ctx context.Context) ([]Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	reply, err := k.client.ask(ctx, request{Op: opList})
	if errors.Is(err, errNotRunning) {
		return k.orphans()
	}
	if err != nil {
		return nil, err
	}
	own, err := netnsInode("")
	if err == nil && own != reply.Inode {
		err = fmt.Errorf("the supervisor of %s (process %d) runs in another network namespace", k.client.dir, reply.PID)
	}
	return reply.Kept, err
}

// orphans are what is left while no supervisor runs. What cannot be read is no error here: the next supervisor says so in its log.
func (k *Kernel) orphans() ([]Status, error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	records, _ := k.store.read()
	var list []Status
	for i := range records {
		if records[i].Boot != boot {
			continue
		}
		s := statusOf(k.store, &records[i])
		s.Orphaned = true
		list = append(list, s)
	}
	return list, nil
}

// Lock is called before something is changed, and recovers first. Supervisors keep several clients apart by themselves.
func (k *Kernel) Lock(ctx context.Context, _ model.Scope) (unlock func(), err error) {
	return func() {}, k.Recover(ctx)
}

// Recover lets a supervisor take over what one that was killed has left: programs that run go on, others are started again. Where there is
// nothing it does nothing.
func (k *Kernel) Recover(ctx context.Context) error {
	list, err := k.Status(ctx)
	if err != nil || !slices.ContainsFunc(list, func(s Status) bool { return s.Orphaned }) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	_, err = k.client.askStarting(ctx, request{Op: opList})
	return err
}

// wrong says behind a field's text, where there is one, what is the matter.
func wrong(f model.Fields, field model.Field, what model.Value) {
	if v, ok := f[field]; ok {
		f[field] = v + what
	}
}

// Read returns the instance's processes and hand-overs, whatever the scope names. What is there and not as it should be has a field that
// tells so, and differs from what is declared: the program or the socket of what no supervisor keeps, the netns (then "?") of a process
// in a namespace whose name another one has, the socket of a hand-over whose device is another one.
func (k *Kernel) Read(ctx context.Context, _ model.Scope) (*model.System, error) {
	list, err := k.Status(ctx)
	if err != nil {
		return nil, err
	}
	system := &model.System{Objects: make(map[model.ID]*model.Object, len(list))}
	if system.BootID, err = bootID(); err != nil {
		return nil, err
	}
	if system.Inode, err = netnsInode(""); err != nil {
		return nil, err
	}
	for i := range list {
		s := &list[i]
		if s.Orphaned {
			wrong(s.Fields, "program", ", unsupervised")
			wrong(s.Fields, "socket", ", unsupervised")
		}
		netns := string(s.Fields["netns"])
		if s.ID.Kind() == model.KindHandover {
			netns = s.ID.Netns()
		}
		inode, err := netnsInode(setup.NamespacePath(netns))
		if err != nil {
			return nil, err
		}
		switch s.ID.Kind() {
		case model.KindProcess:
			if inode != s.Inode {
				s.Fields["netns"] = "?"
			}
		case model.KindHandover:
			if index, err := setup.LinkIndex(setup.NamespacePath(netns), s.ID.Link().Name()); err != nil || index != s.Index || inode != s.Inode {
				wrong(s.Fields, "socket", ", of another device")
			}
		}
		system.Objects[s.ID] = &model.Object{ID: s.ID, Fields: s.Fields, Index: s.Index, Inode: s.Inode, Ours: true}
	}
	return system, nil
}

// Do starts and stops. A process is started when it does its work; a stop returns when nothing of it is left.
func (k *Kernel) Do(ctx context.Context, step *plan.Step) (done apply.Done, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	switch step.Op {
	case plan.Create:
		_, err := k.client.askStarting(ctx, request{Op: opKeep, ID: step.ID, Fields: step.Fields, Index: step.Index, Inode: step.Inode})
		if err != nil {
			return done, k.failed("start", step.ID, err)
		}
		return done, nil
	case plan.Delete:
		_, err := k.client.ask(ctx, request{Op: opLeave, ID: step.ID})
		if errors.Is(err, errNotRunning) {
			err = k.endOrphan(ctx, step.ID)
		}
		if err != nil {
			return done, k.failed("stop", step.ID, err)
		}
		return done, nil
	}
	return done, k.failed(string(step.Op), step.ID, errors.New("nothing of it can be changed in place"))
}

func (k *Kernel) failed(op string, id model.ID, err error) error {
	return &setup.OpError{Op: op + " " + string(id.Kind()), Item: id.Rest(), Err: err}
}

// endOrphan ends what a supervisor that was killed has left.
func (k *Kernel) endOrphan(ctx context.Context, id model.ID) error {
	if _, err := os.Stat(k.client.dir); err != nil {
		return nil // nothing was ever there
	}
	lock, err := k.client.lock()
	if errors.Is(err, unix.EWOULDBLOCK) { // one is starting by now, or ending
		if err := pause(ctx); err != nil {
			return err
		}
		_, err = k.client.ask(ctx, request{Op: opLeave, ID: id})
		if errors.Is(err, errNotRunning) {
			return k.endOrphan(ctx, id)
		}
		return err
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	records, _ := k.store.read()
	for i := range records {
		if records[i].ID == id {
			err = k.endRecord(&records[i])
		}
	}
	if err = errors.Join(err, k.store.remove(id)); err != nil {
		return err
	}
	return k.client.tidy()
}

// endRecord ends what a record is about, first with SIGTERM.
func (k *Kernel) endRecord(r *record) error {
	boot, err := bootID()
	if err != nil || r.Boot != boot {
		return err
	}
	if r.Socket != nil {
		return r.Socket.Remove(string(r.Fields["socket"]))
	}
	if p, ok := find(r.PID, r.Started, r.Mark); ok {
		defer p.close()
		if err := p.terminate(); err != nil {
			return err
		}
		awaitExit(p.fd, stopLimit)
	}
	return sweepService(r)
}

// Try tells which programs are not installed.
func (k *Kernel) Try(_ context.Context, steps []plan.Step) (list []apply.Missing, _ error) {
	told := map[string]bool{}
	for i := range steps {
		name := string(steps[i].Fields["program"])
		if steps[i].ID.Kind() != model.KindProcess || steps[i].Op != plan.Create || told[name] {
			continue
		}
		if _, err := findProgram(name); err != nil {
			told[name] = true
			list = append(list, apply.Missing{Step: steps[i], What: "the program " + name, Err: err})
		}
	}
	return list, nil
}
