package apply_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"culvert/setup/apply"
	"culvert/setup/kerneltest"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

// batches counts the links that are deleted together, and those deleted alone.
type batches struct {
	*kerneltest.Kernel
	together []int
	alone    int
}

func (k *batches) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	k.together = append(k.together, len(steps))
	return k.Kernel.DeleteLinks(ctx, steps)
}

func (k *batches) Do(ctx context.Context, s *plan.Step) (apply.Done, error) {
	if s.Op == plan.Delete && s.ID.Kind() == model.KindLink {
		k.alone++
	}
	return k.Kernel.Do(ctx, s)
}

// Links are deleted together, but no more at once than others can wait for; and all of the steps are told and journalled.
func TestDeletedTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	before := b.kernel.All()
	s := &spec.Spec{Instance: "test"}
	for i := range 60 {
		s.Links = append(s.Links, spec.Link{Key: fmt.Sprint("br", i), Type: spec.TypeBridge})
	}
	for i := range 400 {
		s.Links = append(s.Links, spec.Link{Key: fmt.Sprint("tap", i), Type: spec.TypeTap, Tun: &spec.Tun{Queues: 1}})
	}
	b.apply(s)
	k := &batches{Kernel: b.kernel}
	b.with(func(e *apply.Engine) {
		e.Kernel = k
		told := 0
		e.Progress = func(plan.Step) { told++ }
		r, err := e.Destroy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Steps) != 460 || told != 460 || !e.Journal.State().IsEmpty() || e.Journal.State().Interrupted() {
			t.Errorf("%d steps done, %d told; the journal is empty: %t", len(r.Steps), told, e.Journal.State().IsEmpty())
		}
	})
	// Bridges take the kernel forty times as long as taps: 25 of them are a batch.
	if want := []int{25, 25, 10 + 400}; !slices.Equal(k.together, want) || k.alone != 0 {
		t.Errorf("deleted together %v, alone %d; want %v and none", k.together, k.alone, want)
	}
	b.same(before, "destroyed")
}

// A kernel that cannot delete links together deletes one after the other.
func TestPartsDeleteTogether(t *testing.T) {
	t.Parallel()
	k := kerneltest.New()
	for _, p := range []*apply.Parts{{Kernel: struct{ apply.Kernel }{k}}, {Kernel: k, Tunnels: k}} {
		if p.DeleteLinks(t.Context(), nil) == nil {
			t.Errorf("%+v deletes together", p)
		}
	}
	if err := (&apply.Parts{Kernel: k}).DeleteLinks(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
