package ddi

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
)

// feedback is what a client says of an action:
//
//	{"id": 8 | "8", "time": …, "status": {"execution": …, "result": {"finished": …, "progress": {…}}, "code": …, "details": […]}}
//
// What is not known is passed over.
type feedback struct {
	ID     anyID `json:"id"`
	Status struct {
		Execution string `json:"execution"`
		Result    struct {
			Finished string `json:"finished"`
		} `json:"result"`
		Details details `json:"details"`
	} `json:"status"`
}

// anyID is an ID as clients write it: a number, its text, or nothing.
type anyID int32

// UnmarshalJSON implements json.Unmarshaler.
func (i *anyID) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	if text == "" || text == "null" {
		*i = 0
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return fmt.Errorf("id %.20s: want a number below 2^31", data)
	}
	*i = anyID(n)
	return nil
}

// details are lines of text; one that is something else is passed over.
type details []string

// UnmarshalJSON implements json.Unmarshaler.
func (d *details) UnmarshalJSON(data []byte) error {
	var any []json.RawMessage
	if json.Unmarshal(data, &any) != nil {
		any = []json.RawMessage{data}
	}
	for _, raw := range any {
		var line string
		if json.Unmarshal(raw, &line) == nil && line != "" {
			*d = append(*d, line)
		}
	}
	return nil
}

// What is looked for in a body that is no JSON: SWUpdate writes an installer's words into it as they are, behind all that counts.
var (
	brokenExecution = regexp.MustCompile(`"execution"\s*:\s*"([a-z]{1,16})"`)
	brokenFinished  = regexp.MustCompile(`"finished"\s*:\s*"([a-z]{1,16})"`)
	brokenID        = regexp.MustCompile(`"id"\s*:\s*"?([0-9]{1,10})"?`)
	brokenDetails   = regexp.MustCompile(`(?s)"details"\s*:\s*\[(.*)`)
)

// decodeFeedback reads feedback on the action of that number.
func decodeFeedback(body []byte, number int32) (f feedback, err error) {
	if err = json.Unmarshal(body, &f); err != nil {
		if f, err = mend(body, err); err != nil {
			return f, err
		}
	}
	if f.ID != 0 && int32(f.ID) != number {
		return f, fmt.Errorf("it says that it is on action %d, and its address says %d", f.ID, number)
	}
	switch f.Status.Execution {
	case "closed":
		switch f.Status.Result.Finished {
		case "success", "none", "failure":
		default:
			return f, fmt.Errorf("closed, and finished %.20q: want success, none or failure", f.Status.Result.Finished)
		}
	case "proceeding", "scheduled", "resumed", "download", "downloaded", "rejected", "canceled":
	default:
		return f, fmt.Errorf("execution %.20q is not known", f.Status.Execution)
	}
	return f, nil
}

// mend reads a body that is no JSON because of what is written into its details.
func mend(body []byte, why error) (f feedback, err error) {
	found := func(in *regexp.Regexp) string {
		m := in.FindSubmatch(body)
		if m == nil {
			return ""
		}
		return string(m[1])
	}
	f.Status.Execution, f.Status.Result.Finished = found(brokenExecution), found(brokenFinished)
	text := found(brokenDetails)
	if f.Status.Execution == "" || text == "" {
		return f, why // what is broken is not its details
	}
	if err := f.ID.UnmarshalJSON([]byte(found(brokenID))); err != nil {
		return f, err
	}
	f.Status.Details = details{strings.TrimRight(text, " \t\r\n]}")}
	return f, nil
}

// said is what the feedback means.
func (f feedback) said() device.Said {
	switch f.Status.Execution {
	case "closed":
		if f.Status.Result.Finished == "failure" {
			return device.Failing
		}
		return device.Succeeded
	case "canceled":
		return device.GaveUp
	}
	return device.Working
}

// saidOfCancel is what it means as an answer to being told to leave off; false: nothing yet.
func (f feedback) saidOfCancel() (device.Said, bool) {
	switch f.Status.Execution {
	case "closed":
		if f.Status.Result.Finished == "failure" {
			return device.KeepsOn, true
		}
		return device.GaveUp, true
	case "canceled":
		return device.GaveUp, true
	case "rejected":
		return device.KeepsOn, true
	}
	return "", false
}

// text is what the client wrote for people, without what would move a terminal.
func (f feedback) text() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.Join(f.Status.Details, "; "))
}

// attributes is what a client says of itself: {"mode": …, "data": {name: value}}.
type attributes struct {
	Mode legacy.Mode       `json:"mode"`
	Data map[string]string `json:"data"`
}

func decodeAttributes(body []byte) (a attributes, err error) {
	if err := json.Unmarshal(body, &a); err != nil {
		return a, err
	}
	if a.Data == nil {
		return a, errors.New("it has no data")
	}
	if a.Mode == "" {
		a.Mode = legacy.Merge
	}
	return a, nil
}

// confirmation is what whoever has a device says to an update: {"confirmation": "confirmed" | "denied", "details": […]}.
type confirmation struct {
	Confirmation string  `json:"confirmation"`
	Details      details `json:"details"`
}

func decodeConfirmation(body []byte) (c confirmation, err error) {
	if err := json.Unmarshal(body, &c); err != nil {
		return c, err
	}
	if c.Confirmation != "confirmed" && c.Confirmation != "denied" {
		return c, fmt.Errorf("confirmation %.20q: want confirmed or denied", c.Confirmation)
	}
	return c, nil
}
