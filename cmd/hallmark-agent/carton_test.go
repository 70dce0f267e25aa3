package main

import (
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/wire"
)

// Who waits for an install is told what came of that one, and of no other.
func TestWhatCameOfAnInstall(t *testing.T) {
	began := agent.LocalReply{Command: []byte("this"), Release: "b2", Act: wire.ActInstall}
	result := func(command string, o wire.Outcome) wire.Result {
		return wire.Result{Command: []byte(command), Act: wire.ActInstall, Outcome: o, Code: "fetch", Text: "the file is gone"}
	}
	status := func(release string, all ...wire.Result) agent.Status {
		return agent.Status{Version: "of " + release, Release: release, Results: all}
	}
	for name, c := range map[string]struct {
		began agent.LocalReply
		at    agent.Status
		want  string
	}{
		"done":                                  {began, status("b2", result("this", wire.OutcomeDone)), ""},
		"failed":                                {began, status("a1", result("this", wire.OutcomeFailed)), "the install ended as failed, the device runs of a1: fetch: the file is gone"},
		"failed, and another before was done":   {began, status("a1", result("other", wire.OutcomeDone), result("this", wire.OutcomeFailed)), "ended as failed"},
		"failed, and another since was done":    {began, status("c3", result("this", wire.OutcomeFailed), result("other", wire.OutcomeDone)), "ended as failed"},
		"done, and another since failed":        {began, status("b2", result("this", wire.OutcomeDone), result("other", wire.OutcomeFailed)), ""},
		"its server has it, and it runs":        {began, status("b2"), ""},
		"its server has it, and it does not":    {began, status("a1"), "the device runs of a1, and not what the carton brought"},
		"the same, and another was done before": {began, status("a1", result("other", wire.OutcomeDone)), "and not what the carton brought"},
		"a device that does not say what it is": {agent.LocalReply{Act: wire.ActInstall}, status("", result("other", wire.OutcomeDone)), "and not what the carton brought"},
	} {
		err := cameOf(c.began, c.at)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
