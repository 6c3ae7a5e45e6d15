package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"culvert/setup"
	"culvert/setup/apply"
	"culvert/setup/model"
	"culvert/setup/plan"
)

// Ground is where steps are tried: a network namespace with a loopback device alone, in which nothing is harmed.
type Ground interface {
	// Do carries out a step as [apply.Kernel] does, and fails with the kernel's own answer.
	Do(ctx context.Context, step *plan.Step) (apply.Done, error)
	// Look returns the fields that the kernel shows of a link, an attachment, a queueing discipline or a sysctl; nil where there is none.
	Look(id model.ID) model.Fields
}

// scratch is a namespace of the running kernel that has no name, and goes with all in it once it is closed.
type scratch struct {
	*Kernel
	ns *namespace
}

func newScratch() (*scratch, error) {
	ns, err := scratchNamespace()
	if err != nil {
		return nil, err
	}
	s := &scratch{New(fmt.Sprintf("/proc/self/fd/%d", ns.file)), ns}
	s.conns[""] = ns
	return s, nil
}

// Look reads a thing by a request about it alone.
func (s *scratch) Look(id model.ID) model.Fields {
	if id.Kind() == model.KindSysctl {
		if o, ok := s.ns.readSysctl(id.Words()[1]); ok {
			return o.Fields
		}
		return nil
	}
	l, err := s.ns.linkByName(id.Link().Name())
	if err != nil || l == nil {
		return nil
	}
	switch id.Kind() {
	case model.KindLink:
		return l.fields
	case model.KindAttachment:
		return l.port
	case model.KindQdisc:
		w := &work{k: s.Kernel, step: &plan.Step{ID: id}, ns: s.ns}
		if q, err := w.qdisc(l); err == nil && q != nil {
			return q.fields()
		}
	}
	return nil
}

// groundless is what is missing where the kernel has no namespace to try steps in.
func groundless(steps []plan.Step, err error) ([]apply.Missing, error) {
	if errors.Is(err, unix.EPERM) && setup.MayConfigure() {
		return nil, nil // no namespace without CAP_SYS_ADMIN: what the kernel lacks is seen when its step fails, and all goes back
	}
	if len(steps) == 0 || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) { // linux/net_namespace.h; unshare(2)
		return nil, &setup.OpError{Op: "make a scratch namespace", Err: err, Hint: hint(&plan.Step{}, err)}
	}
	at := 0
	for i := range steps {
		if steps[i].ID.Kind() == model.KindNetns {
			at = i
			break
		}
	}
	return []apply.Missing{netnsFeature.missing(&steps[at], err)}, nil
}
