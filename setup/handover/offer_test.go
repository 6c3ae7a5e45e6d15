package handover

import "testing"

func FuzzOffer(f *testing.F) {
	f.Add([]byte(`{"device":"vnet1","kind":"tap","mac":"02:00:00:00:00:01","mtu":1500,"queues":1,"vnet_hdr":true}`+"\n"), 1)
	f.Add([]byte(`{"error":"go away"}`+"\n"), 0)
	f.Fuzz(func(t *testing.T, line []byte, files int) {
		o, err := parseOffer(line, files)
		if err == nil && (files != o.Queues || files == 0 || o.Error != "") {
			t.Errorf("%+v with %d files is no offer", o, files)
		}
	})
}
