package apply_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"culvert/setup/apply"
	"culvert/setup/journal"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// pair is two instances on one machine.
type pair struct {
	*testing.T
	bench *bench
}

func newPair(t *testing.T) *pair { return &pair{t, newBench(t)} }

// as runs f with an engine of an instance, in a process of its own. It reports whether that was killed.
func (p *pair) as(instance string, f func(e *apply.Engine)) (killed bool) {
	p.Helper()
	j, err := journal.Open(filepath.Join(filepath.Dir(p.bench.dir), instance))
	if err != nil {
		p.Fatal(err)
	}
	defer func() { // as commands do
		end := j.Close
		if j.State().IsEmpty() && !killed {
			end = j.Remove
		}
		if err := end(); err != nil {
			p.Error(err)
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(kerneltest.Killed); !ok {
				panic(r)
			}
			killed = true
		}
	}()
	f(&apply.Engine{Instance: instance, Kernel: p.bench.kernel, Journal: j})
	return false
}

func (p *pair) try(instance string, s *spec.Spec) (err error) {
	p.Helper()
	items := []model.Item(nil)
	if s != nil {
		c := *s
		c.Instance = instance
		items = model.Expand(&c)
	}
	p.as(instance, func(e *apply.Engine) { _, err = e.Apply(p.Context(), items) })
	return err
}

// apply applies, or destroys where s is nil.
func (p *pair) apply(instance string, s *spec.Spec) {
	p.Helper()
	if err := p.try(instance, s); err != nil {
		p.Fatalf("%s: %v", instance, err)
	}
}

func (p *pair) settled(instance string, s *spec.Spec) {
	p.Helper()
	c := *s
	c.Instance = instance
	p.as(instance, func(e *apply.Engine) {
		made, _, err := e.Plan(p.Context(), model.Expand(&c))
		if err != nil || !made.IsEmpty() {
			p.Fatalf("%s is not settled: %v\n%s", instance, err, made)
		}
	})
}

// nothingLeft demands that no instance remembers anything.
func (p *pair) nothingLeft(when string) {
	p.Helper()
	left, err := filepath.Glob(filepath.Dir(p.bench.dir) + "/*/*")
	if err != nil || len(left) > 0 {
		p.Errorf("%s: files are left: %v %v", when, left, err)
	}
}

// onPort is what two instances may both say of one device: settings, addresses, a limit, and being a port.
func onPort(mtu int, rate spec.BitRate) *spec.Spec {
	return &spec.Spec{Links: []spec.Link{
		{Key: "eth2", External: true, MTU: mtu, TxQueueLen: new(uint32(500)), Addresses: []spec.Address{{Prefix: netip.MustParsePrefix("10.9.0.1/24")}}},
		{Key: "docker0", External: true, Ports: []spec.Port{{Link: "eth1"}}},
		{Key: "eth1", External: true},
	}, Shaping: []spec.Shaping{{Source: "eth2", Egress: &spec.Qdisc{HTB: &spec.HTB{Rate: rate}}}},
		Rules:  []spec.Rule{{Priority: 1000, Family: 4, Table: 77}},
		Routes: []spec.Route{{Prefix: netip.MustParsePrefix("10.10.0.0/16"), Table: 77, Type: "blackhole"}}}
}

func TestInstancesShare(t *testing.T) {
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		p := newPair(t)
		before := p.bench.kernel.All()
		s := onPort(1400, 8e6)
		p.apply("a", s)
		with := p.bench.kernel.All()
		p.apply("b", s)
		p.bench.same(with, "applied twice")
		p.settled("a", s)
		p.settled("b", s)
		p.apply(order[0], nil)
		p.bench.same(with, order[0]+" is destroyed")
		p.settled(order[1], s)
		// One that comes again inherits from the one that stayed.
		p.apply("c", s)
		p.apply(order[1], nil)
		p.bench.same(with, "the third keeps it")
		p.apply("c", nil)
		p.bench.same(before, "all are destroyed")
		p.nothingLeft("all are destroyed")
	}
}

// TestInstanceLetsGo: what is taken out of one file stays for the other.
func TestInstanceLetsGo(t *testing.T) {
	p := newPair(t)
	before := p.bench.kernel.All()
	s := onPort(1400, 8e6)
	less := &spec.Spec{Links: []spec.Link{{Key: "eth2", External: true, TxQueueLen: new(uint32(500))}}}
	p.apply("a", s)
	p.apply("b", s)
	with := p.bench.kernel.All()
	p.apply("a", less)
	p.bench.same(with, "a lets go")
	p.apply("b", nil)
	if o := p.bench.kernel.Objects["link eth2"]; o.Fields["mtu"] != "1500" || o.Fields["txqueuelen"] != "500" {
		t.Errorf("eth2 is %v", o.Fields)
	}
	p.apply("a", nil)
	p.bench.same(before, "all are destroyed")
	p.nothingLeft("all are destroyed")
}

func TestInstancesInConflict(t *testing.T) {
	p := newPair(t)
	first := onPort(1400, 8e6)
	p.apply("a", first)
	before := p.bench.kernel.All()
	other := onPort(1300, 9e6)
	other.Rules[0].Table = 78
	other.Links = append(other.Links, spec.Link{Key: "br9", Type: spec.TypeBridge, Ports: []spec.Port{{Link: "eth1"}}})
	other.Links[1].Ports = nil
	err := p.try("b", other)
	if _, ok := errors.AsType[*apply.ConflictError](err); !ok {
		t.Fatalf("error %v, want a conflict", err)
	}
	for _, want := range []string{
		"link eth2: the instance a keeps its mtu at 1400, and this file says 1300: say the same in both files, or take it out of one",
		"class eth2 6376:1: the instance a has made it: its ceil is 8mbit, not 9mbit, its rate is 8mbit, not 9mbit; say the same",
		"rule 1000 ipv4: the instance a has made it: its table is 77, not 78; say the same",
		"attachment eth1: the instance a has made it a port of docker0: a link can be the port of one alone",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %q:\n%v", want, err)
		}
	}
	p.bench.same(before, "in conflict")
	// Nor may the one change what the other has come to share.
	p.apply("b", first)
	if err := p.try("a", onPort(1300, 9e6)); err == nil || !strings.Contains(err.Error(), "the instance b keeps its mtu at 1400") ||
		!strings.Contains(err.Error(), "class eth2 6376:1: the instance b has it too, as it is: its ceil is 8mbit, not 9mbit") {
		t.Errorf("error %v", err)
	}
	p.bench.same(before, "in conflict")
	p.apply("b", nil)
	p.apply("a", onPort(1300, 9e6))
	p.settled("a", onPort(1300, 9e6))
}

// TestDeclaredAsFound: who says a value that is there already keeps it as well.
func TestDeclaredAsFound(t *testing.T) {
	p := newPair(t)
	p.apply("a", &spec.Spec{Links: []spec.Link{{Key: "eth2", External: true, MTU: 1500}, {Key: "br9", Type: spec.TypeBridge}}})
	err := p.try("b", &spec.Spec{Links: []spec.Link{{Key: "eth2", External: true, MTU: 1400}}})
	if err == nil || !strings.Contains(err.Error(), "the instance a keeps its mtu at 1500, and this file says 1400") {
		t.Errorf("error %v", err)
	}
}

// TestFailureLeavesNoClaim: an apply that was undone has no part in what the other instance has.
func TestFailureLeavesNoClaim(t *testing.T) {
	for _, fail := range []string{"fails", "is not begun"} {
		p := newPair(t)
		s := onPort(1400, 8e6)
		p.apply("a", s)
		before := p.bench.kernel.All()
		more := onPort(1400, 8e6)
		more.Links = append(more.Links, spec.Link{Key: "br9", Type: spec.TypeBridge}, spec.Link{Key: "br8", Type: spec.TypeBridge})
		more.Instance = "b"
		p.as("b", func(e *apply.Engine) {
			ctx, cancel := context.WithCancel(t.Context())
			if fail == "fails" {
				p.bench.kernel.Fail = func(s *plan.Step, _ int, _ kerneltest.When) bool { return s.ID == "link br9" && s.Op == plan.Create }
			} else {
				e.Preflight = canceller{cancel}
			}
			if _, err := e.Apply(ctx, model.Expand(more)); err == nil {
				t.Error("it worked")
			}
			cancel()
		})
		p.bench.kernel.Fail = nil
		p.bench.same(before, "undone")
		p.apply("a", onPort(1300, 9e6))
		p.apply("a", nil)
		p.nothingLeft("b " + fail)
	}
}

// canceller is a preflight in which the user loses patience.
type canceller struct{ cancel func() }

func (c canceller) Try(context.Context, []plan.Step) ([]apply.Missing, error) {
	c.cancel()
	return nil, nil
}

// TestInstancesKilled kills each step of each of two instances' ways, and demands that the last to go sets all back.
func TestInstancesKilled(t *testing.T) {
	s := onPort(1400, 8e6)
	less := &spec.Spec{Links: []spec.Link{{Key: "eth2", External: true, TxQueueLen: new(uint32(500))}}}
	type act struct {
		instance string
		spec     *spec.Spec
	}
	for name, acts := range map[string][]act{
		"one after the other":  {{"a", s}, {"b", s}, {"a", nil}, {"b", nil}},
		"the second first":     {{"a", s}, {"b", s}, {"b", nil}, {"a", nil}},
		"less in between":      {{"a", s}, {"b", s}, {"a", less}, {"b", nil}, {"a", nil}},
		"the first comes back": {{"a", s}, {"b", s}, {"a", nil}, {"a", s}, {"b", nil}, {"a", nil}},
	} {
		t.Run(name, func(t *testing.T) {
			for victim := range acts {
				for _, retry := range []bool{true, false} {
					for n := 0; ; n++ {
						p := newPair(t)
						before := p.bench.kernel.All()
						killed := false
						for i, a := range acts {
							if i == victim {
								base := len(p.bench.kernel.Steps)
								when := kerneltest.When(n % 3)
								p.bench.kernel.Kill = func(_ *plan.Step, at int, w kerneltest.When) bool { return at == base+n/3 && w == when }
								killed = p.as(a.instance, func(e *apply.Engine) {
									items := []model.Item(nil)
									if a.spec != nil {
										c := *a.spec
										c.Instance = a.instance
										items = model.Expand(&c)
									}
									_, _ = e.Apply(t.Context(), items)
								})
								p.bench.kernel.Kill = nil
								if killed && !retry {
									continue
								}
							}
							err := p.try(a.instance, a.spec)
							if c, ok := errors.AsType[*apply.ConflictError](err); ok && killed && !retry &&
								(strings.Contains(c.Error(), "setting its") || strings.Contains(c.Error(), "taking it away")) {
								continue // the other was killed while it gave it back
							}
							if err != nil {
								t.Fatalf("%s, after act %d was killed at %d: %v", a.instance, victim, n, err)
							}
						}
						for _, instance := range []string{"a", "b", "a"} {
							p.apply(instance, nil)
						}
						p.bench.same(before, fmt.Sprintf("act %d killed at %d, retry %v", victim, n, retry))
						p.nothingLeft("destroyed")
						if t.Failed() {
							return
						}
						if !killed && n%3 == 0 {
							break
						}
					}
				}
			}
		})
	}
}

// TestGoneBeforeDestroy: what others have deleted is told of, and nothing is remembered.
func TestGoneBeforeDestroy(t *testing.T) {
	p := newPair(t)
	s := onPort(1400, 8e6)
	s.Netns = []spec.Netns{{Name: "n7"}}
	s.Links = append(s.Links, spec.Link{Key: "br7", Type: spec.TypeBridge, Addresses: []spec.Address{{Prefix: netip.MustParsePrefix("10.8.0.1/24")}}},
		spec.Link{Key: "br8", Type: spec.TypeBridge}, spec.Link{Key: "tap7", Type: spec.TypeTap, Netns: "n7", Tun: &spec.Tun{Mode: spec.TypeTap}})
	p.apply("a", s)
	k := p.bench.kernel
	maps.DeleteFunc(k.Objects, func(id model.ID, o *model.Object) bool {
		return o.Group == model.Group && id != "link br8" || o.Ours || id.Netns() == "n7" || id == "link eth2" || id == "attachment eth1" || id.Link() == "br7" || id.Link() == "eth2"
	})
	k.AddLink("br7", "bridge", nil)
	changed := k.Objects["link br8"]
	changed.Alias = "mine"
	after := k.All()
	for _, again := range []bool{false, true} {
		p.as("a", func(e *apply.Engine) {
			if again {
				return
			}
			// The declaration was forgotten before, by a destroy that left something.
			e.Journal.Apply(nil)
			r, err := e.Destroy(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"link br8 carries culvert's mark no longer, somebody has changed it: left alone", "attachment eth1 is gone already", "link br7 is another one than culvert made, and is left alone",
				"link eth2 is gone already: its mtu is not set back to 1500: its txqueuelen is not set back to 1000",
				"netns n7 is gone already", "route 10.10.0.0/16 table 77 is gone already", "rule 1000 ipv4 is gone already"}
			if !slices.Equal(r.Notes, want) {
				t.Errorf("notes\n%s\nwant\n%s", strings.Join(r.Notes, "\n"), strings.Join(want, "\n"))
			}
			if !e.Journal.State().IsEmpty() {
				t.Errorf("the journal still knows %v", e.Journal.State().IDs())
			}
		})
	}
	p.bench.same(after, "destroyed")
	p.nothingLeft("destroyed")
}

// TestKilledWhileItLeaves: what another instance was about to take away is not built upon.
func TestKilledWhileItLeaves(t *testing.T) {
	p := newPair(t)
	before := p.bench.kernel.All()
	s := onPort(1400, 8e6)
	p.apply("a", s)
	p.bench.kernel.Kill = func(*plan.Step, int, kerneltest.When) bool { return true }
	p.as("a", func(e *apply.Engine) { _, _ = e.Destroy(t.Context()) })
	p.bench.kernel.Kill = nil
	err := p.try("b", s)
	for _, want := range []string{"link eth2: the instance a is setting its mtu back, or was killed while it did: try again, or complete it with culvert destroy a",
		"rule 1000 ipv4: the instance a is taking it away, or was killed while it did: try again, or complete it with culvert destroy a"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	p.apply("a", nil)
	p.apply("b", s)
	p.apply("b", nil)
	p.bench.same(before, "destroyed")
	p.nothingLeft("destroyed")
}

// oneAtATime lets several engines share a kernel.
type oneAtATime struct {
	*kerneltest.Kernel
	mu *sync.Mutex
}

func (k oneAtATime) Read(ctx context.Context, scope model.Scope) (*model.System, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Kernel.Read(ctx, scope)
}

func (k oneAtATime) Do(ctx context.Context, s *plan.Step) (apply.Done, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Kernel.Do(ctx, s)
}

// TestInstancesAtOnce: two that go at the same time do not leave it to each other, nor do two that come miss each other.
func TestInstancesAtOnce(t *testing.T) {
	s := onPort(1400, 8e6)
	for range 50 {
		p := newPair(t)
		before := p.bench.kernel.All()
		p.apply("a", s)
		p.apply("b", s)
		var mu sync.Mutex
		var both sync.WaitGroup
		for _, instance := range []string{"a", "b"} {
			both.Go(func() {
				p.as(instance, func(e *apply.Engine) {
					e.Kernel = oneAtATime{p.bench.kernel, &mu}
					if _, err := e.Destroy(t.Context()); err != nil {
						t.Error(err)
					}
				})
			})
		}
		both.Wait()
		p.bench.same(before, "both are destroyed")
		p.nothingLeft("both are destroyed")
		if t.Failed() {
			return
		}
	}
}
