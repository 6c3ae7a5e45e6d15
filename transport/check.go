package transport

import "errors"

// Errors of trains that cannot be sent on any network.
var (
	ErrTrainSize     = errors.New("transport: train larger than its buffer or MaxTrainBytes")
	ErrTrainSegments = errors.New("transport: train of more than MaxTrainSegments datagrams")
	ErrNoRemote      = errors.New("transport: train without a remote address and port")
)

// ErrTooBig is the Err of a train whose datagrams are larger than the interface they would leave by takes, where they may
// not be fragmented (see [Socket.SetDontFragment]). It says nothing of the path behind that interface.
var ErrTooBig = errors.New("transport: datagram larger than the interface's MTU")

// Check tells what keeps a train from being sent: one of the first three errors above, or nil. A train of no bytes is fine, and
// sends nothing.
func (t *Train) Check() error {
	switch {
	case t.N < 0 || t.N > len(t.Buf) || t.N > MaxTrainBytes:
		return ErrTrainSize
	case t.Datagrams() > MaxTrainSegments:
		return ErrTrainSegments
	case !t.Endpoint.Remote.IsValid() || t.Endpoint.Remote.Port() == 0:
		return ErrNoRemote
	}
	return nil
}
