package service

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"culvert/setup/handover"
	"culvert/setup/model"
)

func TestRecordsAreReadBack(t *testing.T) {
	s := store{filepath.Join(t.TempDir(), "state")}
	if list, err := s.read(); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v of no directory", list, err)
	}
	want := map[model.ID]record{}
	for _, r := range []record{
		{ID: "process dnsmasq:ns/veth-b", Fields: model.Fields{"program": "dnsmasq", "config": "a\nb"}, Boot: "b", Inode: 7, Mark: strings.Repeat("0f", markSize), PID: 3, Started: 1 << 40},
		{ID: "process ..", Fields: model.Fields{"program": "teamd"}, Boot: "b", Mark: strings.Repeat("1f", markSize)},
		{ID: "handover ns/vnet1", Fields: model.Fields{"socket": "/run/x"}, Boot: "b", Index: 4, Socket: &handover.Mark{Dev: 1, Inode: 2, Folders: []string{"/run/y"}}},
	} {
		err := s.write(&r)
		if r.ID == "process .." {
			if err == nil {
				t.Error("a name leads out of the directory")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want[r.ID] = r
	}
	list, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	got := map[model.ID]record{}
	for _, r := range list {
		got[r.ID] = r
	}
	if !maps.EqualFunc(got, want, func(a, b record) bool { return reflect.DeepEqual(a, b) }) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	for id := range want {
		if err := s.remove(id); err != nil {
			t.Error(err)
		}
	}
	if left, _ := os.ReadDir(s.dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestBadRecords: one that cannot be read hides no other.
func TestBadRecords(t *testing.T) {
	s := store{t.TempDir()}
	good := record{ID: "process a", Boot: "b", Mark: strings.Repeat("00", markSize)}
	if err := s.write(&good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"torn": `{"id":"process to`, "no-mark": `{"id":"process no-mark"}`, "other": `{"id":"process a","mark":"` + good.Mark + `"}`,
		"kind": `{"id":"link kind"}`, "unknown": `{"id":"process unknown","shell":"rm"}`, "long": `{"id":"` + strings.Repeat("x", 2*maxRecord) + `"}`,
	} {
		if err := write(filepath.Join(s.dir, processes, name, "record"), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.read()
	if len(list) != 1 || list[0].ID != "process a" {
		t.Errorf("%+v", list)
	}
	for _, name := range []string{"torn", "no-mark", "other", "kind", "unknown", "long"} {
		if err == nil || !strings.Contains(err.Error(), "/"+name+"/") {
			t.Errorf("%v, want %s named", err, name)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"id":"process a","fields":{"program":"dnsmasq"},"boot":"b","inode":7,"mark":"00112233445566778899aabbccddeeff","pid":1,"started":2}`))
	f.Add([]byte(`{"id":"handover ns/vnet1","fields":{"socket":"/run/x","queues":"2"},"socket":{"dev":1,"inode":2}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		if _, err := (store{"/state"}).folder(r.ID); err != nil {
			return
		}
		if folder, _ := (store{"/state"}).folder(r.ID); filepath.Dir(filepath.Dir(folder)) != "/state" {
			t.Errorf("%q is kept in %s", r.ID, folder)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(`{"version":1,"op":"list"}`)
	f.Add(`{"version":1,"op":"keep","id":"process a","fields":{"program":"dnsmasq","args":"[]"}}`)
	f.Add(`{"version":2,"op":"keep"}`)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := readRequest(strings.NewReader(text))
		if err == nil && q.Op != opList && q.ID.Rest() == "" {
			t.Errorf("%+v was let through", q)
		}
		if err == nil && q.Op == opKeep && q.ID.Kind() == model.KindProcess {
			_, _ = command(q.Fields, files{}, "nobody")
		}
	})
}
