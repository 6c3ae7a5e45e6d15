package service

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"culvert/setup/model"
)

// protocol is the version of requests and answers. A supervisor of another one, started by another culvert, is not talked to.
const protocol = 1

// One connection carries one request and one answer, each a JSON object.
const (
	opList  = "list"
	opKeep  = "keep"  // start a process, open a hand-over
	opLeave = "leave" // stop it
)

type request struct {
	Version int          `json:"version"`
	Op      string       `json:"op"`
	ID      model.ID     `json:"id,omitempty"`
	Fields  model.Fields `json:"fields,omitempty"`
	Index   int          `json:"index,omitempty"` // of a hand-over's device, 0: whichever has the name
	Inode   uint64       `json:"inode,omitempty"` // of its namespace, 0: whichever has the name
}

type response struct {
	Version int      `json:"version"`
	Error   string   `json:"error,omitempty"`
	Retry   bool     `json:"retry,omitempty"`  // the supervisor is ending: the next one is to be asked
	Ending  bool     `json:"ending,omitempty"` // it keeps nothing any more; the connection ends with its process
	PID     int      `json:"pid,omitempty"`    // the supervisor's
	Inode   uint64   `json:"inode,omitempty"`  // of the namespace it runs in
	Kept    []Status `json:"kept,omitempty"`   // all of it, or what the request was about
}

// maxList bounds an answer in bytes.
const maxList = 64 << 20

func receive(r io.Reader, limit int64, to any) error {
	limited := &io.LimitedReader{R: r, N: limit}
	err := json.NewDecoder(limited).Decode(to)
	if err != nil && limited.N == 0 {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return err
}

func readRequest(r io.Reader) (q request, err error) {
	if err := receive(r, maxRecord, &q); err != nil {
		return q, err
	}
	if q.Version != protocol {
		return q, fmt.Errorf("protocol %d is asked for, this supervisor has %d: another version of culvert started it", q.Version, protocol)
	}
	switch q.Op {
	case opList:
	case opKeep, opLeave:
		if kind := q.ID.Kind(); kind != model.KindProcess && kind != model.KindHandover || q.ID.Rest() == "" {
			return q, fmt.Errorf("%q is nothing that is kept", q.ID)
		}
	default:
		return q, errors.New("unknown request")
	}
	return q, nil
}
