package throttle_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/throttle"
)

func TestAStrangerAsksALittle(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	a := throttle.NewAsks(func() time.Time { return now })
	many := func(n int, remote func(i int) string) (allowed int) {
		for i := range n {
			if a.Allow(remote(i)) {
				allowed++
			}
		}
		return allowed
	}
	one := func(int) string { return "192.0.2.1:1000" }
	if n := many(50, one); n != 10 {
		t.Errorf("one address was answered %d times at once, want 10", n)
	}
	if !a.Allow("192.0.2.2:1") {
		t.Error("somebody at another address is kept out by it")
	}
	if n := many(50, func(i int) string { return fmt.Sprintf("[2001:db8::%x]:1", i) }); n != 10 {
		t.Errorf("one IPv6 network was answered %d times at once, want 10", n)
	}
	now = now.Add(4 * time.Second)
	if n := many(50, one); n != 2 {
		t.Errorf("after 4 s the address was answered %d times, want 2", n)
	}
	if n := many(5000, func(i int) string { return fmt.Sprintf("10.%d.%d.1:1", i/250, i%250) }); n > 300 {
		t.Errorf("all together were answered %d times at once", n)
	}
}
