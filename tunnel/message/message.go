package message

// Type is the kind of a control message.
type Type uint64

const (
	TypeHello   Type = 1
	TypeAck     Type = 2
	TypeEcho    Type = 3
	TypeReply   Type = 4
	TypeProbe   Type = 5
	TypeProbed  Type = 6
	TypePush    Type = 7
	TypeGoodbye Type = 8
	TypeMoved   Type = 9
)

// Sizes in bytes.
const (
	MaxSize     = 16 << 10 // a whole message, without what follows a probe
	MaxProbe    = 65535    // a probe with its zeros
	MinProbe    = 14       // a probe with the largest id and no zeros
	MaxAgent    = 64
	MaxSubject  = 32
	MaxDocument = 15 << 10
	MaxMTU      = 65535
	MaxHops     = 16
	maxElements = 16 // of an array or map
	maxNesting  = 4
)

// What [Hello.Layer] may be, as in the parameters of the handshake.
const (
	LayerEthernet = 2
	LayerIP       = 3
)

// Reasons of a [Goodbye]. Others are to be taken as ReasonUnspecified.
const (
	ReasonUnspecified = 0
	ReasonStopping    = 1 // the daemon or the tunnel stops
	ReasonRemoved     = 2 // the peer was taken out of the configuration
)

// Numbered reports whether messages of type t carry a number and are sent until acknowledged. False for unknown types, of
// which the number alone tells.
func (t Type) Numbered() bool { return t == TypeHello || t == TypePush }

// Message is a message without its number: one of the types of this package, by value.
type Message interface {
	Type() Type
	check() error
}

// helloRelays is bit 0 of a hello's flags.
const helloRelays = 1

// Hello is the first message of each session, from both ends, and sent again where what it says changes.
type Hello struct {
	Agent string // name and version of the program, printable, at most MaxAgent bytes, may be empty
	MTU   int    // of the overlay device, bytes, 0 to MaxMTU
	Layer uint8  // LayerIP or LayerEthernet
	// Relays: frames that come from the receiver are sent on to other peers, as it is a spoke here.
	Relays bool
}

// Ack acknowledges the numbered message Number of the session it is sent under.
type Ack struct {
	Number uint64 // from 1
}

// Echo asks for a [Reply].
type Echo struct {
	ID   uint64
	Sent uint64 // data messages sent under this session so far
}

// Reply answers an [Echo].
type Reply struct {
	ID       uint64
	Received uint64 // data messages authenticated under this session so far
}

// Probe asks for a [Probed] if it arrives. [EncodeProbe] gives it its size.
type Probe struct{ ID uint64 }

// Probed answers a [Probe].
type Probed struct{ ID uint64 }

// Push carries a document of which only the two ends know the form.
type Push struct {
	Subject  string // printable, 1 to MaxSubject bytes
	Document []byte // at most MaxDocument bytes
}

// Goodbye says that no answer will come any more.
type Goodbye struct{ Reason uint64 }

// Moved says that stations may be behind other ends from now on: what is known of their places is to be forgotten.
type Moved struct {
	Hops uint64 // how often it may be sent on, at most MaxHops
}

// Unknown is a message of a type that is not known here. It cannot be encoded.
type Unknown struct{ Code Type }

func (Hello) Type() Type     { return TypeHello }
func (Ack) Type() Type       { return TypeAck }
func (Echo) Type() Type      { return TypeEcho }
func (Reply) Type() Type     { return TypeReply }
func (Probe) Type() Type     { return TypeProbe }
func (Probed) Type() Type    { return TypeProbed }
func (Push) Type() Type      { return TypePush }
func (Goodbye) Type() Type   { return TypeGoodbye }
func (Moved) Type() Type     { return TypeMoved }
func (m Unknown) Type() Type { return m.Code }
