package service_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
	"culvert/setup/handover"
	"culvert/setup/model"
	"culvert/setup/plan"
	"culvert/setup/spec"
)

func TestHandoverIsKept(t *testing.T) {
	t.Parallel()
	lab.NeedTun(t)
	h := lab.NewHost(t, "vm")
	h.Shell("ip", "tuntap", "add", "name", "vnet1", "mode", "tap", "multi_queue", "vnet_hdr")
	k := newKeeper(t)
	socket := filepath.Join(t.TempDir(), "sockets", "vm1.sock")
	mode := uint32(0o660)
	group := uint32(5)
	var id model.ID
	var fields model.Fields
	for _, i := range expanded(t, &spec.Spec{
		Instance: "test",
		Netns:    []spec.Netns{{Name: h.Namespace.Name(), External: true}},
		Links: []spec.Link{{Key: "vnet1", Netns: h.Namespace.Name(), Type: spec.TypeTap, Tun: &spec.Tun{Mode: spec.TypeTap, Queues: 2},
			Handover: &spec.Handover{Socket: socket, Mode: &mode, Group: &group}}},
	}) {
		if i.ID.Kind() == model.KindHandover {
			id, fields = i.ID, i.Fields
		}
	}
	k.create(id, fields)
	take := func() {
		t.Helper()
		offer, files, err := handover.Receive(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != 2 || offer.Device != "vnet1" || !offer.VNetHdr {
			t.Errorf("%d files, %+v", len(files), offer)
		}
		for _, f := range files {
			f.Close()
		}
	}
	take()
	o := k.read()[id]
	if o == nil || !maps.Equal(o.Fields, fields) || !o.Ours || o.Index == 0 || o.Inode != netnsOf(t, h.NetnsPath()) {
		t.Errorf("read back %+v, want %v", o, fields)
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", st, err)
	}

	// After a crash the socket is there and nobody behind it.
	k.killSupervisor()
	if o := k.read()[id]; o == nil || o.Fields["socket"] != model.Value(socket)+", unsupervised" {
		t.Errorf("read back %+v, want it unsupervised", o)
	}
	if unlock, err := k.Lock(t.Context(), model.Scope{}); err != nil {
		t.Fatal(err)
	} else {
		unlock()
	}
	take()
	if o := k.read()[id]; o == nil || !maps.Equal(o.Fields, fields) {
		t.Errorf("read back %+v", o)
	}

	// Another device of the name is not the one meant.
	h.Shell("ip", "link", "del", "vnet1")
	h.Shell("ip", "link", "add", "vnet1", "type", "veth", "peer", "name", "far")
	if _, _, err := handover.Receive(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "by now, not") {
		t.Errorf("%v", err)
	}
	if o := k.read()[id]; o == nil || o.Fields["socket"] != model.Value(socket)+", of another device" {
		t.Errorf("read back %+v, want it to be of another device", o)
	}
	k.delete(id)
	if _, err := os.Lstat(filepath.Dir(socket)); !os.IsNotExist(err) {
		t.Error("the socket's folder is left")
	}
	k.gone()

	// And again without a supervisor.
	k.create(id, fields)
	k.killSupervisor()
	k.delete(id)
	if _, err := os.Lstat(filepath.Dir(socket)); !os.IsNotExist(err) {
		t.Error("the socket's folder is left")
	}
	k.gone()

	for name, step := range map[string]plan.Step{
		"no device":         {ID: model.HandoverID(model.NewRef(h.Namespace.Name(), "nothing")), Fields: fields},
		"no namespace":      {ID: "handover cv-nowhere/vnet1", Fields: fields},
		"another index":     {ID: id, Fields: fields, Index: 4711},
		"another namespace": {ID: id, Fields: fields, Inode: 4711},
		"no queues":         {ID: id, Fields: model.Fields{"socket": model.Value(socket)}},
		"wrong mode":        {ID: id, Fields: model.Fields{"socket": model.Value(socket), "queues": "1", "mode": "rw"}},
	} {
		step.Op = plan.Create
		if _, err := k.Do(t.Context(), &step); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Lstat(filepath.Dir(socket)); !os.IsNotExist(err) {
			t.Errorf("%s: the socket's folder is left", name)
		}
	}
	k.gone()
}
