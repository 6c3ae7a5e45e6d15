package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"culvert/setup/model"
	"culvert/setup/plan"
)

// lockTries is how often it is looked whether another instance has given the lock back: flock itself cannot be left.
const lockTries = 50 * time.Millisecond

// LockOthers keeps other instances, whose journals are beside this one, from planning until the returned function is called, which may be
// done more than once. It waits for those that plan just now, or go back, until ctx ends: for a moment each, which reading the kernel and
// writing the journal take, but for ever where one was stopped in that moment. A lock that is free is taken whatever ctx says.
func (j *Journal) LockOthers(ctx context.Context) (unlock func(), err error) {
	// The lock is that of the directory of all journals: there is no file that would be left.
	path := filepath.Dir(j.dir)
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var again *time.Ticker
	for {
		err = syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return sync.OnceFunc(func() { d.Close() }), nil
		}
		if err != syscall.EINTR && err != syscall.EWOULDBLOCK {
			d.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if again == nil {
			again = time.NewTicker(lockTries)
			defer again.Stop()
		}
		select {
		case <-ctx.Done():
			d.Close()
			return nil, fmt.Errorf("%s is locked by a culvert apply, up, reload, down or destroy of another instance, which has not ended its "+
				"planning: wait for that command, or end it where it was stopped: %w", path, ctx.Err())
		case <-again.C:
		}
	}
}

// Others is what the instances whose journals are beside this one have to do with the things of a system. A journal that cannot be read, or
// not all of it, is noted. What can still be told of such a one is doubtful ([plan.Claim]).
func (j *Journal) Others(sys *model.System) (others plan.Others, notes []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(j.dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("what other instances have is not known: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || e.Name() == filepath.Base(j.dir) {
			continue
		}
		other, err := peek(filepath.Join(filepath.Dir(j.dir), e.Name()), (*Journal).salvage)
		if err != nil {
			notes = append(notes, fmt.Sprintf("what the instance %s has is not known, its journal cannot be read: %v", e.Name(), err))
			continue
		}
		for _, what := range other.Ignored() {
			notes = append(notes, fmt.Sprintf("what the instance %s has is not known in full: %s", e.Name(), what))
		}
		if other.boot != sys.BootID || other.inode != sys.Inode {
			continue // void, or of another network namespace
		}
		if others == nil {
			others = plan.Others{}
		}
		for id, c := range other.state.claims() {
			c.Instance, c.Doubtful = e.Name(), len(other.ignored) > 0
			others[id] = append(others[id], c)
		}
	}
	return others, notes, nil
}

// salvage takes what can be told of lines that are damaged, or behind such a one: what another instance may have is not to be taken away
// because a bit has flipped in its journal. A last line that is cut short is being written, and is no damage.
func (j *Journal) salvage(rest []byte) {
	if j.boot != "" && !bytes.Contains(rest, []byte("\n")) {
		j.ignored = nil
		return
	}
	for text := range bytes.Lines(rest) {
		_, body, ok := bytes.Cut(text, []byte(" "))
		l := new(line)
		if ok && json.Unmarshal(body, l) == nil {
			_ = j.take(l) // or it does not belong where it is
		}
	}
}

// claims is what an instance has to do with things that need not be its alone, its intentions included.
func (s *State) claims() map[model.ID]plan.Claim {
	claims := make(map[model.ID]plan.Claim)
	hold := func(id model.ID, name model.Field, h plan.Held) {
		c := claims[id]
		if c.Fields == nil {
			c.Fields = make(map[model.Field]plan.Held)
		}
		c.Fields[name] = h
		claims[id] = c
	}
	if s.Applied != nil {
		for i := range s.Applied.Items {
			item := &s.Applied.Items[i]
			for name, v := range item.Fields {
				if isKept(item.ID.Kind(), name) && !slices.Contains(s.released[item.ID], name) {
					hold(item.ID, name, plan.Held{Value: v})
				}
			}
		}
	}
	known := s.Known()
	for id, prior := range known.Prior {
		c := claims[id]
		c.Where = prior.Where
		claims[id] = c
		for name, f := range prior.Fields {
			hold(id, name, plan.Held{Value: f.New, Old: f.Old, Changed: true})
		}
	}
	for i := s.done; i < len(s.begun); i++ {
		step := &s.begun[i]
		if step.Op != plan.Change {
			continue
		}
		for _, f := range step.Changes {
			if !isKept(step.ID.Kind(), f.Field) {
				continue
			}
			h, ok := claims[step.ID].Fields[f.Field]
			switch {
			case step.Owner == model.OwnerCulvert && step.ID.Kind() == model.KindLink: // its own
				h = plan.Held{Value: f.New}
			case ok && h.Changed && h.Old == f.New:
				h.Leaving = true
			case ok && h.Changed:
				h.Value = f.New
			default:
				h = plan.Held{Value: f.New, Old: f.Old, Changed: true}
			}
			hold(step.ID, f.Field, h)
		}
	}
	for id, own := range known.Own {
		if k := id.Kind(); k == model.KindLink || k == model.KindNetns {
			continue // these have a mark
		}
		c := claims[id]
		c.Made, c.Where, c.Fields = true, own, nil // who made it says all of it
		claims[id] = c
	}
	for i := s.done; i < len(s.begun); i++ {
		if id := s.begun[i].ID; s.begun[i].Op == plan.Delete && claims[id].Made {
			c := claims[id]
			c.Leaving = true
			claims[id] = c
		}
	}
	return claims
}

// isKept reports whether a field of somebody else's thing of the kind can be kept at a value.
func isKept(kind model.Kind, name model.Field) bool {
	return slices.Contains([]model.Kind{model.KindLink, model.KindAttachment, model.KindSysctl}, kind) && name != "type" && name != "master"
}
