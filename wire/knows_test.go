package wire

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWhatADeviceKnowsIsWithinBounds(t *testing.T) {
	many := func(n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprintf("kind-%02d", i))
		}
		return names
	}
	for name, c := range map[string]struct {
		knows []string
		ok    bool
	}{
		"nothing":     {nil, true},
		"two":         {[]string{"delta1", "sealed1"}, true},
		"the most":    {many(MaxKnows), true},
		"too many":    {many(MaxKnows + 1), false},
		"the longest": {[]string{strings.Repeat("a", MaxKnown)}, true},
		"too long":    {[]string{strings.Repeat("a", MaxKnown+1)}, false},
		"no name":     {[]string{""}, false},
		"twice":       {[]string{"delta1", "delta1"}, false},
		"falling":     {[]string{"sealed1", "delta1"}, false},
		"not a name":  {[]string{"Delta 1"}, false},
	} {
		said := Checkin{Nonce: make([]byte, 32), State: "active", Knows: c.knows}
		if _, err := EncodeCheckin(said); (err == nil) != c.ok {
			t.Errorf("%s: said, with %v", name, err)
		}
		data, err := Marshal(said)
		if err != nil {
			t.Fatal(err)
		}
		in, err := DecodeCheckin(data)
		if (err == nil) != c.ok || c.ok && !slices.Equal(in.Knows, c.knows) {
			t.Errorf("%s: heard %q, %v", name, in.Knows, err)
		}
	}
}
