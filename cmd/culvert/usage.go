package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"culvert/config"
	"culvert/crypto"
	"culvert/tunnel"
	"culvert/tunnel/access"
)

// saveUsageEvery is how often what peers have used of their quotas is saved: as much may be lost by a crash.
const saveUsageEvery = time.Minute

// maxUsageFile bounds the file: 8192 peers of each of 64 tunnels at about 130 bytes.
const maxUsageFile = 96 << 20

// usageStore keeps what peers have used of their quotas over restarts, in a file of the instance's. A nil store keeps nothing.
type usageStore struct {
	path string
	log  func(format string, args ...any)

	mu    sync.Mutex
	used  map[string]map[crypto.PublicKey]access.Usage // by tunnel
	saved []byte
}

// usageFile is the file's content.
type usageFile struct {
	Version int                                          `json:"version"`
	Tunnels map[string]map[crypto.PublicKey]access.Usage `json:"tunnels"`
}

// usagePath is where an instance keeps its usage. No instance's own folder can have that name.
func (p *program) usagePath(instance string) string {
	return filepath.Join(p.stateDir, ".usage", instance+".json")
}

// openUsage reads the file. Of one that is damaged nothing is used: quotas begin anew, which is said.
func openUsage(path string, log func(format string, args ...any)) *usageStore {
	s := &usageStore{path: path, log: log, used: make(map[string]map[crypto.PublicKey]access.Usage)}
	text, err := readUsage(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	var f usageFile
	if err == nil {
		if err = json.Unmarshal(text, &f); err == nil && f.Version != 1 {
			err = fmt.Errorf("version %d of it is not known", f.Version)
		}
	}
	if err != nil {
		log("what was used of quotas cannot be read, and counts as nothing: %s: %v", path, err)
		return s
	}
	if f.Tunnels != nil {
		s.used = f.Tunnels
	}
	s.saved = text
	return s
}

func readUsage(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("it is no regular file"))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxUsageFile+1))
	if err == nil && len(text) > maxUsageFile {
		err = errors.New("it is too large")
	}
	return text, err
}

// restore adds to a change what the peers in it have used that begin to have a quota by it. before are the peers that had one.
func (s *usageStore) restore(c *tunnel.Change, name string, before map[crypto.PublicKey]bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range c.Peers {
		p := &c.Peers[i]
		if u, ok := s.used[name][p.PublicKey]; ok && !before[p.PublicKey] && p.Access != nil && p.Access.HasQuota() {
			p.Usage = &u
		}
	}
}

// note takes up what a tunnel's peers have used.
func (s *usageStore) note(name string, status tunnel.Status) {
	if s == nil {
		return
	}
	used := make(map[crypto.PublicKey]access.Usage)
	for _, p := range status.Peers {
		if p.Access != nil && p.Access.Quota != 0 {
			used[p.PublicKey] = p.Access.Used
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(used) == 0 {
		delete(s.used, name)
	} else {
		s.used[name] = used
	}
}

// keep forgets all tunnels but these.
func (s *usageStore) keep(names map[string]bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.used, func(name string, _ map[crypto.PublicKey]access.Usage) bool { return !names[name] })
}

// save writes the file if it would be another: first beside it, so that there is always a whole one.
func (s *usageStore) save() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.used) == 0 {
		s.saved = nil
		if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_ = os.Remove(filepath.Dir(s.path)) // if it is empty
		return nil
	}
	text, err := json.Marshal(usageFile{Version: 1, Tunnels: s.used})
	if err != nil || string(text) == string(s.saved) {
		return err
	}
	if err := writeWhole(s.path, text); err != nil {
		return err
	}
	s.saved = text
	return nil
}

// writeWhole writes a file of mode 0600 in a folder of mode 0700, whole or not at all.
func writeWhole(path string, text []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// saveUsage saves what the peers of an instance have used.
func (in *instance) saveUsage() {
	in.saving.Lock() // so that what was read last is saved last
	defer in.saving.Unlock()
	for _, t := range in.live() {
		var s tunnel.Status
		if t.hasQuotas() {
			s = t.engine.Status()
			s.PrivateKey.Zero()
		}
		in.usage.note(t.hooks.ifname, s)
	}
	if err := in.usage.save(); err != nil {
		in.d.log.Error("what was used of quotas cannot be saved", "error", err)
	}
}

// hasQuotas reports whether any peer has one.
func (t *liveTunnel) hasQuotas() bool {
	t.linkMu.Lock()
	defer t.linkMu.Unlock()
	return slices.ContainsFunc(t.whole.Peers, func(p config.Peer) bool { return p.Access != nil && p.Access.Quota != nil })
}

// keepUsage saves what is used from time to time, until done is closed.
func (in *instance) keepUsage(done <-chan struct{}) {
	ticker := time.NewTicker(saveUsageEvery)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
			in.saveUsage()
		}
	}
}
