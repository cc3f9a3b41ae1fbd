"""The page at / and the one at /docs, in a real browser against the live service."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_service import API, PLATFORM, Service, Session, definition, port, script, task
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

FILES = sorted((PLATFORM / "gbdx_platform" / "page").iterdir())


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the browser puts what it downloads."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[webdriver.Chrome]:
    """Chromium without a window."""
    driver = shutil.which("chromedriver")
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if not driver or not program:
        pytest.fail("no browser: expected chromium and chromedriver (apt-get install chromium chromium-driver)", False)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Root gets no sandbox, /dev/shm may be small; names of other hosts lead nowhere.
    alone = "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,1000", alone):
        options.add_argument(f"--{argument}")
    running = webdriver.Chrome(options, Driver(driver))
    yield running
    running.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, service: Service) -> Iterator[webdriver.Chrome]:
    """The page, signed in as the default account; no script of another, and no fault in its own, at the end."""
    address = str(service.client().base_url)
    browser.get(address)
    browser.execute_script("sessionStorage.clear()")
    browser.get(f"{address}/")
    sign_in(browser, json.loads((service.state / "credentials.json").read_text())["token"])
    until(browser, lambda: one(browser, "#home").is_displayed())
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def one(browser: webdriver.Chrome, selector: str) -> WebElement:
    """The first element that a CSS selector finds."""
    return browser.find_element(By.CSS_SELECTOR, selector)


def every(browser: webdriver.Chrome, selector: str) -> list[WebElement]:
    """All elements that a CSS selector finds."""
    return browser.find_elements(By.CSS_SELECTOR, selector)


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    """The texts of all elements that a CSS selector finds, read at one moment."""
    script = "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)"
    return list(browser.execute_script(script, selector))


def until(browser: webdriver.Chrome, condition: Callable[[], Any]) -> None:
    """Waits for a condition, whose sentence is in the traceback."""
    # What was found may be drawn anew before it is looked at.
    WebDriverWait(browser, 60, 0.1, [StaleElementReferenceException]).until(lambda _: condition())


def press(browser: webdriver.Chrome, selector: str) -> None:
    """Clicks on an element, which may be drawn anew meanwhile."""
    until(browser, lambda: one(browser, selector).click() or True)


def sign_in(browser: webdriver.Chrome, token: str) -> None:
    """Types a token and sends it."""
    until(browser, lambda: one(browser, "#login").is_displayed())
    one(browser, "#token").send_keys(token)
    one(browser, "#login button").click()


def states(browser: webdriver.Chrome) -> dict[str, str]:
    """Task -> state, as the picture has them at one moment."""
    pairs = "[...document.querySelectorAll('.node')].map(one => [one.dataset.task, one.lastChild.textContent])"
    return dict(browser.execute_script(f"return {pairs}"))


def test_a_chain_is_followed_from_its_launch_to_its_logs(
    page: webdriver.Chrome, session: Session, hello: str, fresh: str
) -> None:
    session.register(
        definition(fresh, [port("data")], [port("text", "string")], script("print('here'); strings['text']='x'"))
    )
    until(page, lambda: {hello, fresh} <= set(texts(page, "#tasks li")))
    first = task("first", hello, {"data_in": session.put(f"{fresh}/in/a.txt")})
    workflow = session.launch(first, task("second", fresh, {"data": ("first:data_out",)}))
    until(page, lambda: workflow in texts(page, "#workflows .id"))
    press(page, f'a[href="#workflow/{workflow}"]')
    until(page, lambda: states(page) == {"first": "succeeded", "second": "succeeded"})
    assert len(every(page, ".edge")) == 1
    assert texts(page, "#head .state") == ["succeeded"]
    press(page, '[data-task="second"]')
    until(page, lambda: texts(page, "#logname, #logtext") == ["second: stdout", "here\n"])


def test_a_running_task_is_seen_printing_and_can_be_canceled(
    page: webdriver.Chrome, session: Session, hello: str, fresh: str
) -> None:
    lines = "[print('line', number, flush=True) or time.sleep(1) for number in range(600)]"
    session.register(definition(fresh, [port("a", required=False)], [port("out")], script(lines)))
    endless = task("endless", fresh)
    workflow = session.launch(endless, task("after", hello, {"data_in": ("endless:out",)}))
    page.execute_script("location.hash = arguments[0]", f"#workflow/{workflow}")
    until(page, lambda: states(page).get("endless") == "running")
    until(page, lambda: one(page, '[data-task="endless"]').send_keys("\n") or True)
    until(page, lambda: "line 1\n" in texts(page, "#logtext")[0])
    next(button for button in every(page, "#head button") if button.text == "Cancel").click()
    until(page, lambda: states(page) == {"endless": "canceled", "after": "canceled"})
    assert [button.text for button in every(page, "#head button")] == ["CWL", "OGC package"]


def test_hostile_names_and_logs_stay_text(page: webdriver.Chrome, session: Session, fresh: str) -> None:
    hostile = "<img src=x onerror=document.title='hit'>\"'><script>document.title='hit'</script>"
    printed = script(f"print({hostile!r}); status = 'failed'; reason = {hostile!r}")
    session.register(definition(fresh, [port("a", "string", False)], [], printed, description=hostile))
    found = session.run(task(hostile, fresh), name=hostile)
    page.execute_script("location.hash = arguments[0]", f"#workflow/{found['id']}")
    until(page, lambda: texts(page, "#head h1") == [hostile])
    assert texts(page, "#steps td:nth-child(4)") == [hostile]
    assert texts(page, ".node title") == [f"{hostile} ({fresh}:0.1.0): complete/failed"]
    every(page, "#steps .link")[0].click()
    until(page, lambda: texts(page, "#logtext") == [hostile + "\n"])
    page.execute_script("location.hash = arguments[0]", f"#task/{fresh}")
    until(page, lambda: texts(page, "#definition p") == [hostile])
    assert page.title == "gbdx-platform"
    assert every(page, "main script, main img") == []


def test_in_the_picture_no_boxes_overlap_and_every_line_leads_to_the_right(
    page: webdriver.Chrome, session: Session, fresh: str
) -> None:
    ports = [port(name, required=False) for name in "abc"]
    session.register(definition(fresh, ports, [port("out")], script("os.makedirs(work + 'output/out')")))
    # merge and end also wait for split: their lines pass the columns between.
    waits = {"split": [], "left": ["split"], "right": ["split"], "merge": ["left", "right", "split"]}
    waits["end"] = ["merge", "split"]
    tasks = [
        task(name, fresh, {key: (f"{source}:out",) for key, source in zip("abc", sources, strict=False)})
        for name, sources in waits.items()
    ]
    page.execute_script("location.hash = arguments[0]", f"#workflow/{session.run(*tasks)['id']}")
    until(page, lambda: len(every(page, ".node")) == 5)
    places = {
        node.get_attribute("data-task"): tuple(float(rectangle.get_attribute(name)) for name in ("x", "y"))
        for node in every(page, ".node")
        if (rectangle := node.find_element(By.TAG_NAME, "rect"))
    }
    assert [places[name][0] for name in waits] == [0, 260, 260, 520, 780]
    assert abs(places["left"][1] - places["right"][1]) >= 52  # a box is 190 x 52
    lines = [line.get_attribute("d") for line in every(page, ".edge")]
    ends = [(int(re.match(r"M(\d+),", line)[1]), int(re.search(r" (\d+),[\d.]+$", line)[1])) for line in lines]
    # From a box's right side to 7 before the next one's left: the tip of the arrow.
    assert sorted(ends) == [(190, 253), (190, 253), (190, 513), (190, 773), (450, 513), (450, 513), (710, 773)]


@pytest.fixture
def narrow(browser: webdriver.Chrome) -> Iterator[None]:
    """A window as wide as a telephone."""
    size = {"width": 380, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_in_a_narrow_window_a_long_note_is_read_without_scrolling_aside(
    page: webdriver.Chrome, session: Session, fresh: str, narrow: None
) -> None:
    failing = script("status = 'failed'; reason = 'expected eight bands, found three ' * 12")
    session.register(definition(fresh, [port("a", "string", False)], [], failing))
    found = session.run(task("a-task-with-a-name-longer-than-a-box", fresh))
    page.execute_script("location.hash = arguments[0]", f"#workflow/{found['id']}")
    until(page, lambda: "found three" in "".join(texts(page, "#steps td:nth-child(4)")))
    wider = (
        "[...document.querySelectorAll('body, .card:not(.picture)')].filter(one => one.scrollWidth > one.clientWidth)"
    )
    assert page.execute_script(f"return {wider}.length") == 0
    assert one(page, "#steps td:nth-child(4)").size["width"] > 250
    cards = [card.rect for card in every(page, "#workflow > .card") if card.is_displayed()]
    assert cards[1]["y"] - cards[0]["y"] - cards[0]["height"] >= 10


def test_when_there_are_more_workflows_than_are_shown_the_list_says_so(
    page: webdriver.Chrome, session: Session, fresh: str
) -> None:
    session.register(definition(fresh, [port("a", "string")], [], script("time.sleep(60)")))
    lists = [{"name": "x", "values": [str(number) for number in range(51)]}]
    request = {"name": "w", "tasks": [task("one", fresh, {"a": "{{x}}"})], "batch_values": lists}
    batch = session.http.post(f"{API}/batch_workflows", json=request).json()["batch_workflow_id"]
    assert session.http.post(f"{API}/batch_workflows/{batch}/cancel").status_code == 200
    until(page, lambda: len(every(page, "#workflows .id")) == 50)
    assert texts(page, "#workflows tr:last-child") == ["These are the newest 50 of the last week."]


def test_a_download_is_the_export_of_the_interface(
    page: webdriver.Chrome, downloads: Path, session: Session, hello: str
) -> None:
    one(page, f'a[href="#task/{hello}"]').click()
    until(page, lambda: texts(page, "#definition h1") == [hello])
    next(button for button in every(page, "#definition button") if button.text == "CWL").click()
    file = downloads / f"{hello}.cwl.cwl"
    until(page, file.exists)
    assert json.loads(file.read_text()) == session.http.get(f"{API}/tasks/{hello}", params={"format": "cwl"}).json()


def test_a_wrong_token_is_refused_and_signing_out_forgets_the_right_one(
    page: webdriver.Chrome, service: Service
) -> None:
    one(page, "#leave").click()
    until(page, lambda: one(page, "#login").is_displayed())
    assert page.execute_script("return sessionStorage.getItem('token')") == ""
    sign_in(page, "wrong")
    until(
        page,
        lambda: texts(page, "#said") == ["expected a valid bearer token, found one that is unknown or has expired"],
    )
    assert not one(page, "#home").is_displayed()
    refused = [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert all("401 (Unauthorized)" in message for message in refused)


def test_neither_page_asks_anything_of_another_host(page: webdriver.Chrome, service: Service) -> None:
    address = str(service.client().base_url)
    asked = "return performance.getEntriesByType('resource').map(one => one.name)"
    first = page.execute_script(asked)
    page.get(f"{address}/docs")
    until(
        page, lambda: "/workflows/v1/heartbeat" in "".join(texts(page, ".opblock-summary-path")).replace("\u200b", "")
    )
    second = page.execute_script(asked)
    assert {name for name in first + second if not name.startswith(f"{address}/")} == set()
    assert {f"{address}/page/page.js", f"{address}/page/page.css"} <= set(first)


def test_the_page_is_shown_without_a_token_and_its_policy_allows_no_script_but_its_own(service: Service) -> None:
    answer = service.client("none").get("/")
    policy = answer.headers["content-security-policy"]
    assert (answer.status_code, policy[:38]) == (200, "default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_of_the_page_names_another_host_or_reads_text_as_markup(path: Path) -> None:
    found = re.findall(
        r"(?:inner|outer)HTML|insertAdjacentHTML|https?://(?!www\.w3\.org/2000/svg)", path.read_text("utf-8")
    )
    assert found == []
