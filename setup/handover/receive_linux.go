package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"culvert/setup"
	"golang.org/x/sys/unix"
)

// Receive asks at a socket for the queues of its device. The files are the caller's, in blocking mode and closed on exec.
func Receive(ctx context.Context, socket string) (*Offer, []*os.File, error) {
	fail := func(err error) (*Offer, []*os.File, error) {
		return nil, nil, &setup.OpError{Op: "receive descriptors from", Item: socket, Err: err}
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	data := make([]byte, maxOffer)
	rights := make([]byte, unix.CmsgSpace(4*setup.MaxQueues))
	// Go's runtime asks for MSG_CMSG_CLOEXEC.
	n, nRights, flags, _, err := conn.(*net.UnixConn).ReadMsgUnix(data, rights)
	if err != nil {
		return fail(errors.Join(err, ctx.Err()))
	}
	files, err := received(rights[:nRights])
	var offer Offer
	switch {
	case err != nil:
	case flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0:
		err = errors.New("the answer is cut short")
	default:
		offer, err = parseOffer(data[:n], len(files))
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return fail(err)
	}
	return &offer, files, nil
}

func received(rights []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		descriptors, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // other news than descriptors
		}
		for _, fd := range descriptors {
			files = append(files, os.NewFile(uintptr(fd), "queue"))
		}
	}
	return files, nil
}

func parseOffer(line []byte, files int) (o Offer, err error) {
	line, whole := bytes.CutSuffix(line, []byte("\n"))
	if !whole {
		return o, errors.New("the answer is cut short")
	}
	if err := json.Unmarshal(line, &o); err != nil {
		return o, fmt.Errorf("the answer is not understood: %w", err)
	}
	switch {
	case o.Error != "":
		return o, errors.New(o.Error)
	case files == 0 || files != o.Queues:
		return o, fmt.Errorf("%d descriptors came with an answer about %d", files, o.Queues)
	}
	return o, nil
}
