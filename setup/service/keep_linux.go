package service

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"culvert/setup"
	"culvert/setup/handover"
	"culvert/setup/model"
)

// run begins to keep a process: the one of the record where that runs, else a new one.
func (s *supervisor) run(k *kept) error {
	folder, err := s.store.folder(k.record.ID)
	if err != nil {
		return err
	}
	logf := s.logf(k.record.ID)
	v := &service{store: s.store, record: k.record, files: filesIn(folder), lines: newLines(s.Now, logf)}
	if v.output, err = openOutput(v.files.output, v.lines); err != nil {
		return err
	}
	k.service = v
	k.runner = (&runner{launch: v.launch, ready: v.isReady, sweep: v.sweep, now: s.Now, logf: logf}).prepare()
	if old, ok := find(k.record.PID, k.record.Started, k.record.Mark); ok && old.start == k.record.Started {
		old.watch()
		logf("process %d of an earlier supervisor goes on", old.number)
		go k.runner.run(old)
		return nil
	}
	go k.runner.run(nil)
	return nil
}

// listen begins a hand-over.
func (s *supervisor) listen(k *kept) (err error) {
	d, err := device(&k.record)
	if err != nil {
		return err
	}
	if k.listener, err = handover.Listen(d, k.record.Socket, s.logf(k.record.ID)); err != nil {
		return err
	}
	mark := k.listener.Mark()
	k.record.Socket = &mark
	return s.store.write(&k.record)
}

// device reads the fields of a hand-over.
func device(r *record) (d handover.Device, err error) {
	link, f := model.Ref(r.ID.Rest()), r.Fields
	d = handover.Device{Netns: link.Netns(), Name: link.Name(), Index: r.Index, Queues: int(f["queues"].Uint()), Socket: string(f["socket"])}
	mode, err := strconv.ParseUint(string(f["mode"]), 8, 32)
	if err != nil && f["mode"] != "" {
		return d, fmt.Errorf("mode %q", f["mode"])
	}
	d.Mode = fs.FileMode(mode)
	number := func(key model.Field) *uint32 {
		v, ok := f[key]
		if !ok {
			return nil
		}
		n := uint32(v.Uint())
		return &n
	}
	d.Owner, d.Group = number("owner"), number("group")
	return d, nil
}

func (s *supervisor) keep(q *request) (Status, error) {
	s.mu.Lock()
	_, there := s.kept[q.ID]
	n := len(s.kept)
	s.mu.Unlock()
	if there {
		return Status{}, fmt.Errorf("it is there already: %w", fs.ErrExist)
	}
	if n >= maxKept {
		return Status{}, fmt.Errorf("%d things are kept already", n)
	}
	k := &kept{record: record{ID: q.ID, Fields: q.Fields, Boot: s.boot}}
	var err error
	if q.ID.Kind() == model.KindProcess {
		err = s.keepProcess(k)
	} else {
		err = s.keepHandover(k, q)
	}
	if err != nil {
		return Status{}, err
	}
	s.mu.Lock()
	s.kept[q.ID] = k
	s.mu.Unlock()
	return s.status(k), nil
}

func (s *supervisor) keepProcess(k *kept) (err error) {
	r := &k.record
	defer func() {
		if err != nil {
			err = errors.Join(err, s.store.remove(r.ID))
		}
	}()
	folder, err := s.store.folder(r.ID)
	if err != nil {
		return err
	}
	f := filesIn(folder)
	if _, err := command(r.Fields, f, ""); err != nil {
		return err
	}
	if _, err := findProgram(string(r.Fields["program"])); err != nil {
		return err
	}
	if r.Inode, err = namespace(string(r.Fields["netns"])); err != nil {
		return err
	}
	r.Mark = newMark()
	if err := s.store.write(r); err != nil { // before there is a process
		return err
	}
	if err := write(f.config, []byte(r.Fields["config"])); err != nil {
		return err
	}
	if strings.Contains(string(r.Fields["args"]), model.LeaseArgument) { // dnsmasq would let everybody read it
		if err := write(f.leases, nil); err != nil {
			return err
		}
	}
	if err := s.run(k); err != nil {
		return err
	}
	if err := k.runner.first(); err != nil {
		k.runner.end()
		k.service.output.close()
		if said := k.service.lines.tail(); len(said) > 0 {
			err = fmt.Errorf("%w; it said:\n\t%s", err, strings.Join(said, "\n\t"))
		}
		return err
	}
	return nil
}

func namespace(name string) (uint64, error) {
	inode, err := netnsInode(setup.NamespacePath(name))
	if err == nil && inode == 0 {
		err = fmt.Errorf("there is no namespace %s: %w", name, fs.ErrNotExist)
	}
	return inode, err
}

func (s *supervisor) keepHandover(k *kept, q *request) (err error) {
	r := &k.record
	link := model.Ref(r.ID.Rest())
	if r.Inode, err = namespace(link.Netns()); err != nil {
		return err
	}
	if q.Inode != 0 && r.Inode != q.Inode {
		return fmt.Errorf("another namespace has the name %s by now", link.Netns())
	}
	if r.Index, err = setup.LinkIndex(setup.NamespacePath(link.Netns()), link.Name()); err != nil {
		return err
	}
	if q.Index != 0 && r.Index != q.Index {
		return fmt.Errorf("%s has index %d by now, not %d", link, r.Index, q.Index)
	}
	if err := s.listen(k); err != nil {
		if k.listener != nil {
			err = errors.Join(err, k.listener.Close())
		}
		return errors.Join(err, s.store.remove(r.ID))
	}
	return nil
}

func (s *supervisor) leave(id model.ID) error {
	s.mu.Lock()
	k := s.kept[id]
	s.mu.Unlock()
	if k == nil {
		return nil
	}
	if k.runner != nil {
		k.runner.end()
		if err := k.service.sweep(); err != nil {
			return err
		}
		k.service.output.close()
	}
	if k.listener != nil {
		if err := k.listener.Close(); err != nil {
			return err
		}
		k.listener = nil
	} else if m := k.record.Socket; m != nil {
		if err := m.Remove(string(k.record.Fields["socket"])); err != nil {
			return err
		}
	}
	if err := s.store.remove(id); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.kept, id)
	s.mu.Unlock()
	return nil
}

func (s *supervisor) leaveAll() error {
	s.mu.Lock()
	ids := slices.Sorted(maps.Keys(s.kept))
	s.mu.Unlock()
	var all sync.WaitGroup
	errs := make([]error, len(ids))
	for i, id := range ids {
		all.Go(func() { errs[i] = s.leave(id) })
	}
	all.Wait()
	return errors.Join(errs...)
}
