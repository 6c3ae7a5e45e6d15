package resolve

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"culvert/crypto"
)

// world is a name service and a tunnel in memory.
type world struct {
	t     *testing.T
	start time.Time
	r     *Resolver

	mu      sync.Mutex
	names   map[string][]netip.Addr
	lookups []string // "name@seconds"
	uses    []string // "endpoint@seconds"
	logs    int
}

var key = crypto.PublicKey{1}

func newWorld(t *testing.T, names map[string][]netip.Addr) *world {
	w := &world{t: t, start: time.Now(), names: names}
	w.r = New(Options{
		Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.lookups = append(w.lookups, name+"@"+time.Since(w.start).String())
			if a := w.names[name]; a != nil {
				return a, nil
			}
			return nil, errors.New("no such host")
		},
		Use: func(k crypto.PublicKey, ap netip.AddrPort) {
			if k != key {
				t.Errorf("use for peer %v", k)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.uses = append(w.uses, ap.String()+"@"+time.Since(w.start).String())
		},
		Logf: func(string, ...any) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.logs++
		},
	})
	t.Cleanup(w.r.Close)
	return w
}

// failUntil reports an unanswered initiation every 5 s, as the engine does.
func (w *world) failUntil(d time.Duration) {
	for time.Since(w.start) < d {
		time.Sleep(5 * time.Second)
		w.r.Failing(key)
		synctest.Wait()
	}
}

func (w *world) wantUses(want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.uses, want) {
		w.t.Errorf("endpoints used: %v\nwant %v", w.uses, want)
	}
}

func (w *world) wantLookups(want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.lookups, want) {
		w.t.Errorf("lookups: %v\nwant %v", w.lookups, want)
	}
}

// set changes what a name resolves to; no addresses make it unknown.
func (w *world) set(name string, to ...netip.Addr) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[name] = to
}

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestNameIsResolvedAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, map[string][]netip.Addr{"a.example": addrs("192.0.2.1", "192.0.2.2")})
		w.r.Set(map[crypto.PublicKey][]Target{key: {{"a.example", 1000}}})
		w.wantUses("192.0.2.1:1000@0s")
		time.Sleep(time.Hour)
		w.wantLookups("a.example@0s")
	})
}

func TestLiteralIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.r.Set(map[crypto.PublicKey][]Target{key: {{"192.0.2.1", 1000}}})
		time.Sleep(time.Hour)
		w.wantUses()
		w.wantLookups()
	})
}

// DNS that fails at start is asked again after 1, 2, 4 ... 60, 60 seconds, with one remark in the log.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, map[string][]netip.Addr{})
		w.r.Set(map[crypto.PublicKey][]Target{key: {{"a.example", 1000}}})
		time.Sleep(200 * time.Second)
		w.wantLookups("a.example@0s", "a.example@1s", "a.example@3s", "a.example@7s", "a.example@15s", "a.example@31s",
			"a.example@1m3s", "a.example@2m3s", "a.example@3m3s")
		w.wantUses()
		if w.logs != 1 {
			t.Errorf("%d remarks, want 1", w.logs)
		}
		w.set("a.example", addrs("2001:db8::1")...)
		time.Sleep(time.Minute)
		w.wantUses("[2001:db8::1]:1000@4m3s")
	})
}

// Unanswered handshakes move through the addresses of a name and then look it up again, each candidate having had 15 s.
func TestFailingMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, map[string][]netip.Addr{"a.example": addrs("192.0.2.1", "192.0.2.2")})
		w.r.Set(map[crypto.PublicKey][]Target{key: {{"a.example", 1000}}})
		w.set("a.example", addrs("192.0.2.9")...)
		w.failUntil(50 * time.Second)
		w.wantUses("192.0.2.1:1000@0s", "192.0.2.2:1000@15s", "192.0.2.9:1000@30s", "192.0.2.9:1000@45s")
		w.wantLookups("a.example@0s", "a.example@30s") // not at 45 s: looked up 15 s before
	})
}

func TestTargetsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, map[string][]netip.Addr{"b.example": addrs("192.0.2.2")})
		w.r.Set(map[crypto.PublicKey][]Target{key: {{"192.0.2.1", 1}, {"gone.example", 2}, {"b.example", 3}}})
		w.failUntil(46 * time.Second)
		// gone.example leads nowhere and is passed over at once.
		w.wantUses("192.0.2.2:3@15s", "192.0.2.1:1@30s", "192.0.2.2:3@45s")
		w.wantLookups("gone.example@15s", "b.example@15s", "gone.example@45s", "b.example@45s")
	})
}

// A name service that dies later does not take away the addresses it gave before.
func TestStaleAddressesServeOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, map[string][]netip.Addr{"a.example": addrs("192.0.2.1")})
		w.r.Set(map[crypto.PublicKey][]Target{key: {{"a.example", 1000}}})
		w.set("a.example")
		w.failUntil(35 * time.Second)
		w.wantUses("192.0.2.1:1000@0s", "192.0.2.1:1000@15s", "192.0.2.1:1000@30s")
		w.wantLookups("a.example@0s", "a.example@30s")
	})
}

func TestUnusableAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, map[string][]netip.Addr{
			"a.example": addrs("0.0.0.0", "ff02::1", "fe80::1", "::ffff:192.0.2.7", "192.0.2.7"),
		})
		w.r.Set(map[crypto.PublicKey][]Target{key: {{"a.example", 1000}}})
		w.failUntil(16 * time.Second)
		w.wantUses("192.0.2.7:1000@0s", "192.0.2.7:1000@15s") // once each, unmapped
	})
}

// Set keeps unchanged peers as they are and stops everything for removed ones, lookups under way included.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, map[string][]netip.Addr{"a.example": addrs("192.0.2.1")})
		targets := map[crypto.PublicKey][]Target{key: {{"a.example", 1000}}}
		w.r.Set(targets)
		synctest.Wait()
		w.r.Set(targets)
		w.wantLookups("a.example@0s")
		w.r.Set(nil)
		w.failUntil(time.Minute)
		w.wantUses("192.0.2.1:1000@0s")
		w.r.Set(map[crypto.PublicKey][]Target{key: {{"gone.example", 1}}})
		time.Sleep(time.Second)
		w.r.Set(nil)
		time.Sleep(time.Hour)
		w.wantUses("192.0.2.1:1000@0s")
	})
}

func TestLookupOfRemovedPeerIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := New(Options{
			Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
				<-release
				return addrs("192.0.2.1"), nil
			},
			Use: func(crypto.PublicKey, netip.AddrPort) { t.Error("used the address of a removed peer") },
		})
		defer r.Close()
		r.Set(map[crypto.PublicKey][]Target{key: {{"a.example", 1}}})
		synctest.Wait()
		r.Set(nil)
		close(release)
		synctest.Wait()
	})
}

// Many peers take no goroutine each, and all are looked up.
func TestManyPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count = 1000
		before := runtime.NumGoroutine()
		release := make(chan struct{})
		var running, most atomic.Int32
		used := 0
		r := New(Options{
			Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				<-release
				return addrs("192.0.2.1"), nil
			},
			Use: func(crypto.PublicKey, netip.AddrPort) { used++ },
		})
		peers := map[crypto.PublicKey][]Target{}
		for i := range count {
			peers[crypto.PublicKey{byte(i), byte(i >> 8)}] = []Target{{"a.example", 1}}
		}
		r.Set(peers)
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > maxLookups+1 {
			t.Errorf("%d goroutines for %d peers", n, count)
		}
		close(release)
		synctest.Wait()
		if used != count || most.Load() != maxLookups {
			t.Errorf("%d of %d used, %d lookups at once", used, count, most.Load())
		}
		if n := runtime.NumGoroutine() - before; n > 1 {
			t.Errorf("%d goroutines are left", n)
		}
		r.Close()
	})
}

// Close ends lookups that hang, and what is called afterwards does nothing.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{
			Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
			Use: func(crypto.PublicKey, netip.AddrPort) { t.Error("used an address") },
		})
		peers := map[crypto.PublicKey][]Target{}
		for i := range byte(3 * maxLookups) {
			peers[crypto.PublicKey{i}] = []Target{{"a.example", 1}}
		}
		r.Set(peers)
		synctest.Wait()
		r.Close()
		r.Set(map[crypto.PublicKey][]Target{key: {{"b.example", 1}}})
		r.Failing(key)
	})
}

// A lookup that hangs is given up after 10 s.
func TestLookupTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls int
		start := time.Now()
		r := New(Options{
			Lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
				if calls++; calls > 1 {
					return addrs("192.0.2.1"), nil
				}
				<-ctx.Done()
				return nil, ctx.Err()
			},
			Use: func(crypto.PublicKey, netip.AddrPort) {
				if d := time.Since(start); d != 11*time.Second {
					t.Errorf("used after %v, want 11s", d)
				}
			},
		})
		r.Set(map[crypto.PublicKey][]Target{key: {{"a.example", 1}}})
		time.Sleep(20 * time.Second)
		r.Close()
		if calls != 2 {
			t.Errorf("%d lookups, want 2", calls)
		}
	})
}
