package genuine

import (
	"fmt"
	"testing"
	"time"
)

// One stranger does not use up what a device answers in a day; who sits behind another address, or asks about another device, is not held to it.
func TestOneStrangerLeavesQuestionsToOthers(t *testing.T) {
	var a askers
	now := time.Unix(1_800_000_000, 0)
	for n := range perAsker + 2 {
		from := fmt.Sprintf("192.0.2.1:%d", 1000+n) // another port is no other stranger
		if got, want := a.may(from, "d", now), n < perAsker; got != want {
			t.Errorf("question %d: %v, want %v", n+1, got, want)
		}
	}
	for n := range perAsker + 1 {
		from := fmt.Sprintf("[2001:db8::%x]:443", n+1) // one host has all of its /64
		if got, want := a.may(from, "d", now), n < perAsker; got != want {
			t.Errorf("question %d over IPv6: %v, want %v", n+1, got, want)
		}
	}
	for what, from := range map[string]string{"another address": "192.0.2.2:1", "another network": "[2001:db8:0:1::1]:1"} {
		if !a.may(from, "d", now) {
			t.Errorf("%s may not ask", what)
		}
	}
	if !a.may("192.0.2.1:1", "e", now) {
		t.Error("another device may not be asked")
	}
	a.back("192.0.2.1:9", "d")
	if !a.may("192.0.2.1:1", "d", now) {
		t.Error("a question that was not put counts")
	}
	if a.may("192.0.2.1:1", "d", now.Add(23*time.Hour)) || !a.may("192.0.2.1:1", "d", now.Add(24*time.Hour)) {
		t.Error("a day is not a day")
	}
	for n := range maxAskers + 10 {
		a.may(fmt.Sprintf("10.%d.%d.%d:1", n>>16, n>>8&255, n&255), "d", now.Add(25*time.Hour))
	}
	if len(a.by) > maxAskers {
		t.Errorf("%d are remembered", len(a.by))
	}
}
