"""What is a request to forget, and what only sounds like one."""

from __future__ import annotations

import time

import pytest

from companion.forget_request import denied, forget_request
from companion.offline.intent import Call, command, profile_with

pytestmark = pytest.mark.unit

REQUESTS = [
    ("please forget that I like chess", "thing", "I like chess"),
    ("forget my address", "thing", "my address"),
    ("Forget everything about me", "everything", ""),
    ("delete my data", "everything", ""),
    ("Please delete all my data.", "everything", ""),
    ("could you forget my birthday", "thing", "my birthday"),
    ("I want you to forget where I live", "thing", "where I live"),
    ("don't remember that I like chess", "thing", "I like chess"),
    ("don't save that", "last", ""),
    ("forget that", "last", ""),
    ("Forget it", "idle", ""),
    ("Please erase everything you know about me", "everything", ""),
    ("remove chess from my profile", "thing", "chess"),
    ("erase what I said about my sister", "thing", "my sister"),
    ("forget about my sister", "thing", "my sister"),
    ("I don't like chess any more", "thing", "I like chess"),
    ("I do not like chess anymore", "thing", "I like chess"),
    ("it is not true that I like chess", "thing", "I like chess"),
    ("It's not true that I live in Oslo", "thing", "I live in Oslo"),
    ("I no longer live in Oslo", "thing", "I live in Oslo"),
    ("that I like chess is not true", "thing", "I like chess"),
    ("I no longer like chess, I like go", "thing", "I like chess"),
    ("Forget that I like chess, I like go now.", "thing", "I like chess"),
    ("I moved. Please forget my old address!", "thing", "my old address"),
    ("Actually, forget that I play the piano", "thing", "I play the piano"),
    ("I want my data deleted", "everything", ""),
    ("I want to be forgotten", "everything", ""),
    ("delete me", "everything", ""),
    ("Forget me.", "everything", ""),
    ("Wipe your memory of me", "everything", ""),
    ("can I delete my data?", "everything", ""),
    ("how do I delete my data?", "everything", ""),
    ("stop remembering my address", "thing", "my address"),
    ("forget what I just said", "last", ""),
    ("You can forget that I have a dog now", "thing", "I have a dog"),
    ("please, forget my name", "thing", "my name"),
    ("Hey companion, please forget my phone number", "thing", "my phone number"),
    ("I stopped liking chess", "thing", "chess"),
    ("I'm no longer a nurse", "thing", "a nurse"),
    ("I am not a nurse any more", "thing", "a nurse"),
    ("My sister no longer lives in Rome", "thing", "My sister lives in Rome"),
    ("my sister doesn't live in Rome any more", "thing", "my sister live in Rome"),
    ("Remove my phone number", "thing", "my phone number"),
    ("Take chess off my list, please", "thing", "chess"),
    ("please forget everything I told you about my job", "thing", "everything about my job"),
    ("forget all about chess", "thing", "everything about chess"),
    ("Forget the fact that I like chess", "thing", "I like chess"),
    ("you should forget that I smoke", "thing", "I smoke"),
    ("Never mind, forget my address", "thing", "my address"),
    ("remove the line Likes: chess", "thing", "Likes: chess"),
    ("that's wrong, I don't live in Oslo any more", "thing", "I live in Oslo"),
    ("delete my account", "everything", ""),
    ("erase my profile", "everything", ""),
    ("forget everything", "everything", ""),
    ("delete all the data you have about me", "everything", ""),
    ("Forget that I said I like chess", "thing", "I like chess"),
    ("I would like you to delete my personal information", "everything", ""),
    ("Could you please stop remembering that I like chess?", "thing", "I like chess"),
    ("don't keep my address", "thing", "my address"),
    ("do not store what I say about my health", "thing", "my health"),
    ("please remove everything about chess", "thing", "everything about chess"),
    ("forget all I told you", "everything", ""),
    ("Forget all of my data right now", "everything", ""),
    ("forget the name of my dog", "thing", "the name of my dog"),
    ("erase me from your memory", "everything", ""),
    ("Please forget I ever told you that I like chess", "thing", "I like chess"),
    ("it isn't true that I like chess", "thing", "I like chess"),
    ("It was wrong that I like chess", "thing", "I like chess"),
    ("I don't live in Oslo any longer", "thing", "I live in Oslo"),
    ("I don't like chess any more, I prefer go", "thing", "I like chess"),
    ("FORGET THAT I LIKE CHESS", "thing", "I LIKE CHESS"),
    ("please forget that i like chess and that i live in oslo", "thing", "i like chess and that i live in oslo"),
    ("I’d like you to forget my age", "thing", "my age"),
    ("Delete what you know about my health", "thing", "my health"),
    ("So please forget my job", "thing", "my job"),
    ("Forget, please, that I like chess", "thing", "I like chess"),
    ("Would you mind forgetting my address?", "thing", "my address"),
    ("I changed my mind, forget my address", "thing", "my address"),
    ("Please remove that I like chess", "thing", "I like chess"),
    ("I gave up smoking cigars", "thing", "cigars"),
    ("You are wrong that I like chess", "thing", "I like chess"),
    ("No, that's not right, I don't like chess", "thing", "I like chess"),
    ("Can you delete everything?", "everything", ""),
    ("delete everything about my sister", "thing", "everything about my sister"),
    ("Please delete this", "last", ""),
    ("I hate that you know my address, forget it please", "idle", ""),
    ("forget I asked", "idle", ""),
    ("Can you please delete everything you know about me", "everything", ""),
    ("I'd like to be forgotten", "everything", ""),
    ("Please wipe all my data", "everything", ""),
    ("erase all my information", "everything", ""),
    ("Remove all my data from your system", "everything", ""),
    ("Could you erase my data please?", "everything", ""),
    ("I want to delete my data", "everything", ""),
    ("I want you to delete everything", "everything", ""),
    ("Delete my personal data now", "everything", ""),
    ("Forget me completely", "everything", ""),
    ("forget all about me", "everything", ""),
    ("Forget who I am", "everything", ""),
    ("forget everything you know", "everything", ""),
    ("forget it all", "everything", ""),
    ("You should delete my data", "everything", ""),
    ("please delete my account and all my data", "everything", ""),
    ("Delete all of it", "everything", ""),
    ("Delete everything about me, please", "everything", ""),
    ("can you forget everything I've told you?", "everything", ""),
    ("Forget everything I have ever said", "everything", ""),
    ("forget that I told you my address", "thing", "my address"),
    ("don't remember my address", "thing", "my address"),
    ("Please don't remember this", "last", ""),
    ("please do not store that", "last", ""),
    ("Do not save my phone number", "thing", "my phone number"),
    ("never store my address", "thing", "my address"),
    ("don't keep my data", "everything", ""),
    ("stop storing my data", "everything", ""),
    ("Stop saving what I say", "thing", "what I say"),
    ("I don't want you to remember my address", "thing", "my address"),
    ("I don't want you to remember that", "last", ""),
    ("I'd rather you didn't remember that", "last", ""),
    ("You don't need to remember that", "last", ""),
    ("no need to remember that", "last", ""),
    ("erase that from your memory", "last", ""),
    ("remove that", "last", ""),
    ("delete that last thing", "last", ""),
    ("please unlearn that I like chess", "thing", "I like chess"),
    ("get rid of my address", "thing", "my address"),
    ("take my address out of your notes", "thing", "my address"),
    ("Strike chess from my profile", "thing", "chess"),
    ("clear my profile", "everything", ""),
    ("clear my data", "everything", ""),
    ("clear everything you know about me", "everything", ""),
    ("reset my profile", "everything", ""),
    ("That's not true, I like chess", "thing", "I like chess"),
    ("I don't have a dog any more", "thing", "I have a dog"),
    ("I don't work as a nurse any more", "thing", "I work as a nurse"),
    ("I no longer work as a nurse", "thing", "I work as a nurse"),
    ("I no longer have a dog", "thing", "I have a dog"),
    ("I'm not a nurse anymore", "thing", "a nurse"),
    ("I am no longer married", "thing", "married"),
    ("we don't live in Oslo any more", "thing", "we live in Oslo"),
    ("I've stopped playing chess", "thing", "chess"),
    ("It's no longer true that I like chess", "thing", "I like chess"),
    ("It is false that I like chess", "thing", "I like chess"),
    ("I don't enjoy chess any more", "thing", "I enjoy chess"),
    ("I do not love chess any more", "thing", "I love chess"),
    ("My favourite colour is no longer blue", "thing", "blue"),
    ("My name is not Ada any more", "thing", "Ada"),
    ("I am not called Ada any more", "thing", "called Ada"),
    ("forget my favourite colour", "thing", "my favourite colour"),
    ("Forget what I told you about my sister", "thing", "my sister"),
    ("Forget what I said yesterday about chess", "thing", "chess"),
    ("forget the thing about my sister", "thing", "my sister"),
    ("forget the bit about chess", "thing", "chess"),
    ("would you please forget my age", "thing", "my age"),
    ("Oh and forget my birthday", "thing", "my birthday"),
    ("Ok, forget my birthday", "thing", "my birthday"),
    ("Forget my birthday, thanks", "thing", "my birthday"),
    ("Forget my birthday, will you?", "thing", "my birthday"),
    ("Forget, please, my birthday", "thing", "my birthday"),
    ("Ada here. Forget my birthday!", "thing", "my birthday"),
    ("I said chess but please forget it", "idle", ""),
    ("my number is 1234, please forget it", "idle", ""),
    ("My PIN is 1234. Delete that.", "last", ""),
    ("You can delete my birthday", "thing", "my birthday"),
    ("you may forget that I was here", "thing", "I was here"),
    ("forget that we ever met", "everything", ""),
    ("Forget this conversation", "everything", ""),
    ("delete this conversation", "everything", ""),
    ("forget our conversation", "everything", ""),
    ("Erase our chat", "everything", ""),
    ("delete our conversations", "everything", ""),
    ("erase the conversation history", "everything", ""),
    ("please forget that I'm sick", "thing", "I'm sick"),
    ("Forget that I have HIV", "thing", "I have HIV"),
    ("forget about my illness", "thing", "my illness"),
    ("I'd prefer you to forget that", "last", ""),
    ("Can I ask you to forget my address?", "thing", "my address"),
    ("May I ask you to delete my data?", "everything", ""),
    ("Is it possible to delete my data?", "everything", ""),
    ("how can I get you to forget me?", "everything", ""),
    ("forget about me", "everything", ""),
    ("I withdraw my consent, delete my data", "everything", ""),
    ("Just delete all that", "everything", ""),
    ("Please, remove my name", "thing", "my name"),
    ("Remove my name from your memory please", "thing", "my name"),
    ("delete my name", "thing", "my name"),
]
NONE = [
    "don't forget that I like chess",
    "never forget my birthday",
    "I will never forget you",
    "did you forget my name?",
    "Please don't forget my birthday",
    "do not forget to call",
    "have you forgotten me?",
    "why did you forget my name?",
    "I forgot my keys",
    "I often forget names",
    "Forget-me-nots are my favourite flowers",
    "don't delete my data",
    "please do not delete my data",
    "Never ever delete my data",
    "I don't want you to forget me",
    "You must never forget my birthday",
    "Whatever you do, don't forget my name",
    "I can't forget my ex",
    "I want to forget my ex",
    "Don't let me forget my keys",
    "make sure not to forget my name",
    "Make sure you don't forget my name",
    "before I forget, my sister visits on Friday",
    "Will you forget me?",
    "If you forget my name I'll be sad",
    "forget my birthday and I will be angry",
    "I don't remember that",
    "don't you remember my name?",
    "I like chess",
    "clear my cache",
    "delete the cache",
    "My boss wants to delete my project",
    "She told me to forget my dreams",
    "I get nervous and forget my lines",
    "Remove the wallpaper from my kitchen takes ages",
    "I deleted my photos",
    "unforgettable evening",
    "don't keep me waiting",
    "Could you not forget my name?",
    "I don't know",
    "I don't want to live any more",
    "I don't feel well any more",
    "I'm not happy",
    "I am not tired",
    "I don't like chess",
    "It is true that I like chess",
    "you always forget my name",
    "How could you forget my birthday?",
    "I won't forget to call",
    "Forget not my name",
    "Nobody should forget where they come from",
    "It's hard to forget him",
    "not to forget: I like chess",
    "Don't ever forget that I like chess",
    "remember that I like chess",
    "Delete key is broken on my keyboard",
    "my name is not important",
    "To forget is human",
    "I need to remove my stitches on Monday",
    "My doctor will remove my appendix",
    "I must erase the whiteboard",
    "I told my sister to forget it",
    "I don't want you to forget",
    "Don't you forget me",
    "don't you dare forget my birthday",
    "Please remember that I like chess",
    "Promise you won't forget me",
    "Will you remember me or forget me?",
    "I forget",
    "I forget things easily",
    "I keep forgetting my keys",
    "My grandmother is starting to forget me",
    "He will forget my birthday",
    "You won't forget my birthday, will you?",
    "You never forget anything",
    "Can you forget something once you know it?",
    "What do you forget?",
    "Do you ever forget things?",
    "When do you delete my data?",
    "Do you delete my data?",
    "who can delete my data?",
    "Did you delete my data?",
    "Have you deleted my data?",
    "Why did you delete my data?",
    "has my data been deleted?",
    "I accidentally deleted my data at work",
    "Someone deleted my files",
    "My bank wants to delete my account",
    "My boss told me to delete my account",
    "I have to delete my emails",
    "I should delete my photos",
    "Do not remove my name from the list",
    "don't erase anything",
    "never delete anything",
    "It's true that I like chess",
    "It is not true that I hate chess, I love it",
    "I no longer know what to do",
    "I no longer sleep well",
    "I don't feel like talking any more",
    "I can't go on any more",
    "I don't see my sister any more",
    "nobody loves me any more",
    "I don't want to be here any more",
    "I don't like you any more",
    "I don't love him any more",
    "Isn't it true that I like chess?",
    "You forgot my birthday",
    "forgive and forget",
    "I'll never forget the day we met",
    "unforgettable",
    "Forget-me-not",
    "to forget me would be sad",
    "I would forget my head if it weren't attached",
    "without forgetting my sister",
    "Don't forget: my sister visits on Friday",
    "let me not forget my keys",
    "The doctor removed my appendix",
    "They will remove my wisdom teeth",
    "Can you remove my name from the waiting list at the dentist?",
    "How do I remove my nail polish?",
    "how can I delete my browser history?",
    "clear my calendar",
    "Clear my schedule",
    "drop my kids at school",
    "take my dog out",
    "keep that in mind",
    "I keep everything",
    "That is not true",
    "I can't believe that I like chess",
    "Don't remember? I told you",
    "I do not remember my dreams",
    "don't worry",
    "Don't save me a seat",
    "don't record over my tape",
    "no need to store up food",
    "note that I like chess",
]


@pytest.mark.parametrize(("said", "scope", "what"), REQUESTS)
def test_requests_to_forget(said: str, scope: str, what: str) -> None:
    request = forget_request(said)
    assert request is not None
    assert (request.scope, request.what) == (scope, what)
    # In any case, and with the apostrophe of a telephone's keyboard.
    assert forget_request(said.upper().replace("'", "’")) is not None
    assert profile_with(said, "") in (None, "Likes: go", "Likes: go now"), "it must not be learnt instead"


@pytest.mark.parametrize("said", NONE)
def test_what_only_sounds_like_one(said: str) -> None:
    assert forget_request(said) is None
    call = command(said)
    assert call is None or not call.tool.startswith("forget")


def test_what_is_said_beside_a_request_is_told() -> None:
    assert profile_with("I no longer like chess, I like go", "") == "Likes: go"
    assert profile_with("Forget my address. My name is Ada.", "") == "Name: Ada"
    assert (
        profile_with("My name is Ada, and I like tea. Please forget that I like chess!", "") == "Name: Ada\nLikes: tea"
    )


@pytest.mark.parametrize(
    "said",
    [
        "I never said that I like chess",
        "I don't think I like chess",
        "I am not sure I like chess",
        "If I like chess, I play it",
        "I did not say I live in Oslo",
        "You said I like chess",
        "You think I like chess",
        "I wonder whether I like chess",
        "I wish I live in Oslo",
    ],
)
def test_what_is_not_so_is_not_learnt(said: str) -> None:
    assert profile_with(said, "") is None


def test_what_must_not_be_forgotten_is_learnt() -> None:
    assert profile_with("Don't forget that I like chess", "") == "Likes: chess"
    assert profile_with("Never forget: I like chess", "") == "Likes: chess"
    assert profile_with("Never mind, I like chess", "") == "Likes: chess"


def test_it_calls_the_tool() -> None:
    assert command("please forget that I like chess") == Call("forgetFact", {"what": "I like chess"})
    assert command("delete my data") == Call("forgetEverything", {"confirm": False})
    assert command("What do you know about me? Forget it all.") == Call("forgetEverything", {"confirm": False})
    assert command("forget it") is None


def test_a_denial_says_what_is_not_so() -> None:
    assert denied("No, I don't like chess.") == "I like chess"
    assert denied("I don't really like chess") == "I like chess"
    assert denied("I don't know") == denied("I like chess") == ""


def test_an_endless_request_takes_no_time() -> None:
    begun = time.monotonic()
    words = (
        "forget ",
        "please ",
        "no, ",
        "so please ",
        "my ",
        "I no longer ",
        "it is not true that ",
        "that ",
        "remove ",
    )
    for word in (
        *words,
        "forget everything about ",
        "don't remember ",
        "delete my data, ",
        "my sister ",
        "it is",
        ", ",
    ):
        forget_request(word * 10_000)
        denied(word * 10_000)
        profile_with(word * 10_000, "")
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    "said", ["I like chess. Forget that.", "I like chess, forget it", "I like chess. Delete that!"]
)
def test_what_is_taken_back_at_once_is_not_learnt(said: str) -> None:
    assert profile_with(said, "") is None
