package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"culvert/setup/model"
	"culvert/setup/rtnl"
)

// codec turns a field's text into an attribute's content and back.
type codec struct {
	encode func(model.Value) ([]byte, error)
	decode func([]byte) (model.Value, bool) // false where the content says that there is no value
}

// attribute is how netlink carries a field.
type attribute struct {
	field model.Field
	kind  uint16
	codec codec
}

// find returns the attribute of a field.
func find(table []attribute, f model.Field) (attribute, bool) {
	i := slices.IndexFunc(table, func(a attribute) bool { return a.field == f })
	if i < 0 {
		return attribute{}, false
	}
	return table[i], true
}

// put adds the attribute of a field.
func (a attribute) put(to *rtnl.Attributes, v model.Value) error {
	b, err := a.codec.encode(v)
	if err != nil {
		return err
	}
	to.Put(a.kind, b)
	return nil
}

// decodeFields sets the fields of a table that are among the attributes.
func decodeFields(table []attribute, attributes map[uint16][]byte, fields model.Fields) {
	for _, a := range table {
		b, ok := attributes[a.kind]
		if !ok {
			continue
		}
		if v, ok := a.codec.decode(b); ok {
			fields[a.field] = v
		}
	}
}

// encodeFields adds those of the fields that are in a table.
func encodeFields(table []attribute, fields model.Fields, to *rtnl.Attributes) error {
	for _, a := range table {
		v, ok := fields[a.field]
		if !ok {
			continue
		}
		if err := a.put(to, v); err != nil {
			return fmt.Errorf("%s: %w", a.field, err)
		}
	}
	return nil
}

// sized writes a number into that many bytes.
func sized(n uint64, size int) []byte {
	b := make([]byte, size)
	switch size {
	case 1:
		b[0] = byte(n)
	case 2:
		binary.NativeEndian.PutUint16(b, uint16(n))
	case 4:
		binary.NativeEndian.PutUint32(b, uint32(n))
	case 8:
		binary.NativeEndian.PutUint64(b, n)
	}
	return b
}

// checkSize refuses a number that does not fit into that many bytes.
func checkSize(n uint64, size int) error {
	if size < 8 && n>>(8*size) != 0 {
		return fmt.Errorf("%d is above %d: %w", n, uint64(1)<<(8*size)-1, unix.ERANGE)
	}
	return nil
}

// number is a count of that many bytes.
func number(size int) codec {
	return codec{
		func(v model.Value) ([]byte, error) { return sized(v.Uint(), size), checkSize(v.Uint(), size) },
		func(b []byte) (model.Value, bool) { return model.Uint(rtnl.Uint(b)), true },
	}
}

// signed is a number of four bytes with a sign.
func signed() codec {
	return codec{
		func(v model.Value) ([]byte, error) { return sized(uint64(uint32(int32(v.Int()))), 4), nil },
		func(b []byte) (model.Value, bool) { return model.Int(int32(rtnl.Uint(b))), true },
	}
}

// truth is yes or no in that many bytes.
func truth(size int) codec {
	return codec{
		func(v model.Value) ([]byte, error) {
			if v.Bool() {
				return sized(1, size), nil
			}
			return sized(0, size), nil
		},
		func(b []byte) (model.Value, bool) { return model.Bool(rtnl.Uint(b) != 0), true },
	}
}

// duration is a time in units, of four bytes.
func duration(unit time.Duration) codec {
	return codec{
		func(v model.Value) ([]byte, error) {
			n := uint64(v.Duration() / unit)
			return sized(n, 4), checkSize(n, 4)
		},
		func(b []byte) (model.Value, bool) { return model.Duration(time.Duration(rtnl.Uint(b)) * unit), true },
	}
}

// userTick is the unit of times that the kernel gives as clock_t (USER_HZ is 100).
const userTick = 10 * time.Millisecond

// names are the texts of numbers.
type names map[string]uint64

// named is a number of that many bytes with a name. One without shows as the number.
func named(size int, list names) codec {
	return codec{
		func(v model.Value) ([]byte, error) {
			n, ok := list[string(v)]
			if !ok {
				return nil, fmt.Errorf("%q is unknown: %w", string(v), unix.EINVAL)
			}
			return sized(n, size), nil
		},
		func(b []byte) (model.Value, bool) {
			n := rtnl.Uint(b)
			for name, number := range list {
				if number == n {
					return model.Text(name), true
				}
			}
			return model.Uint(n), true
		},
	}
}

// protocolNames are of IEEE 802.1Q's two tags, by EtherType.
var protocolNames = names{"802.1q": unix.ETH_P_8021Q, "802.1ad": unix.ETH_P_8021AD}

// tagProtocol is one of them, in the order of the network.
func tagProtocol() codec {
	plain := named(2, protocolNames)
	swap := func(b []byte) []byte {
		if len(b) != 2 {
			return b
		}
		return sized(uint64(binary.BigEndian.Uint16(b)), 2)
	}
	return codec{
		func(v model.Value) ([]byte, error) {
			b, err := plain.encode(v)
			return swap(b), err
		},
		func(b []byte) (model.Value, bool) { return plain.decode(swap(b)) },
	}
}

// byteCount is a size of that many bytes.
func byteCount(size int) codec {
	return codec{
		func(v model.Value) ([]byte, error) {
			return sized(uint64(v.Bytes()), size), checkSize(uint64(v.Bytes()), size)
		},
		func(b []byte) (model.Value, bool) { return size64(rtnl.Uint(b)), true },
	}
}

// addresses is a list of addresses of a family, one attribute each, numbered from 0.
func addresses(v6 bool) codec {
	return codec{
		func(v model.Value) ([]byte, error) {
			var inner rtnl.Attributes
			for i, word := range v.List() {
				a, err := netip.ParseAddr(word)
				if err == nil && a.Is6() != v6 {
					err = unix.EAFNOSUPPORT
				}
				if err != nil {
					return nil, fmt.Errorf("address %q: %w", word, err)
				}
				inner.Put(uint16(i), a.AsSlice())
			}
			return inner.Bytes(), nil
		},
		func(b []byte) (model.Value, bool) {
			var list []netip.Addr
			for _, value := range rtnl.All(b) {
				if a, ok := netip.AddrFromSlice(value); ok && !a.IsUnspecified() {
					list = append(list, a)
				}
			}
			slices.SortFunc(list, netip.Addr.Compare)
			words := make([]string, len(list))
			for i, a := range list {
				words[i] = a.String()
			}
			return model.List(words), true
		},
	}
}

// codelTime is a time of four bytes in microseconds that fq_codel keeps in units of its own.
func codelTime() codec {
	return codec{
		func(v model.Value) ([]byte, error) {
			n := uint64(v.Duration() / time.Microsecond)
			return sized(n, 4), checkSize(n, 4)
		},
		func(b []byte) (model.Value, bool) { return model.Duration(model.CodelTold(uint32(rtnl.Uint(b)))), true },
	}
}
