"""What people say to the offline voice, what of it is stored, and of which kind the answer is.

``PLAIN`` is in plain words; ``ROUGH`` is what people really type: contractions, run-on sentences, no punctuation, two
facts at once. ``SEQUENCES`` are said one after the other.
"""

from __future__ import annotations

from typing import Final

Saying = tuple[str, tuple[str, ...], str]
"""The words, the lines that the profile has after them, and the kind of the answer."""

PLAIN: Final[tuple[Saying, ...]] = (
    # Where and how they live
    ("I moved to Oslo", ("Lives in: Oslo",), "learnt"),
    ("I moved to Bergen last month.", ("Lives in: Bergen",), "learnt"),
    ("I just moved from Oslo to Trondheim for work.", ("Lives in: Trondheim",), "learnt"),
    ("We moved to the Netherlands two years ago.", ("Lives in: the Netherlands",), "learnt"),
    ("I've been living in Paris for ten years.", ("Lives in: Paris",), "learnt"),
    ("I live in a small village near Lyon.", ("Lives in: a small village near Lyon",), "learnt"),
    ("I grew up in Porto.", ("From: Porto",), "learnt"),
    ("I'm Norwegian.", ("Is: Norwegian",), "learnt"),
    # Who they are
    ("My name is Ada Lovelace.", ("Name: Ada Lovelace",), "learnt"),
    ("Call me Ishmael.", ("Name: Ishmael",), "learnt"),
    ("My friends call me Max.", ("Name: Max",), "learnt"),
    ("I'm 34.", ("Age: 34",), "learnt"),
    ("I am thirty-four years old.", ("Age: 34",), "learnt"),
    ("I just turned fifty.", ("Age: 50",), "learnt"),
    ("My birthday is on May 3rd.", ("Birthday: May 3rd",), "learnt"),
    ("I was born on 12 March 1985.", ("Birthday: 12 March 1985",), "learnt"),
    ("I was born in 1990.", ("Born in: 1990",), "learnt"),
    # Family and animals
    ("I have two kids.", ("Family: two kids",), "learnt"),
    ("I have a daughter called Sofía.", ("Family: a daughter called Sofía",), "learnt"),
    ("My wife's name is Anna.", ("Family: a wife called Anna",), "learnt"),
    ("I'm married.", ("Is: married",), "learnt"),
    ("My brother moved to Oslo.", ("People: my brother moved to Oslo",), "learnt"),
    ("My mother died last year.", ("People: my mother died last year",), "learnt"),
    ("I have a dog called Rex.", ("Pets: a dog called Rex",), "learnt"),
    ("My cat's name is Tom.", ("Pets: a cat called Tom",), "learnt"),
    # Work and study
    ("I work as a nurse.", ("Work: as a nurse",), "learnt"),
    ("I'm a software engineer at Acme.", ("Work: as a software engineer at Acme",), "learnt"),
    ("I got a new job at Spotify.", ("Work: at Spotify",), "learnt"),
    ("I study physics.", ("Studies: physics",), "learnt"),
    ("I'm retired.", ("Is: retired",), "learnt"),
    # Tastes, languages, health
    ("I love hiking and swimming.", ("Likes: hiking and swimming",), "learnt"),
    ("My favourite colour is green.", ("Favourite: colour is green",), "learnt"),
    ("I hate olives.", ("Dislikes: olives",), "learnt"),
    ("I don't like mushrooms.", ("Dislikes: mushrooms",), "learnt"),
    ("I can't stand loud music.", ("Dislikes: loud music",), "learnt"),
    ("I speak English, French and Norwegian.", ("Speaks: English, French and Norwegian",), "learnt"),
    ("I'm learning Spanish.", ("Learns: Spanish",), "learnt"),
    ("I play the piano.", ("Plays: the piano",), "learnt"),
    ("I'm allergic to nuts.", ("Allergic to: nuts",), "learnt"),
    ("I'm a vegetarian.", ("Diet: vegetarian",), "learnt"),
    ("I don't eat pork.", ("Does not eat: pork",), "learnt"),
    # Plans
    ("I'm moving to Berlin next month.", ("Plans: moving to Berlin next month",), "learnt"),
    ("I have a dentist appointment on Friday.", ("Plans: a dentist appointment on Friday",), "learnt"),
    ("I plan to learn the guitar.", ("Plans: learn the guitar",), "learnt"),
    # Nothing is stored: questions, what is supposed, not so, another's, quoted, a command, in jest
    ("Do I live in Oslo?", (), "any"),
    ("I live in Oslo, right?", (), "cannot"),
    ("If I moved to Oslo, I'd be happy.", (), "any"),
    ("I wish I lived in Oslo.", (), "cannot"),
    ("I want to move to Oslo.", (), "cannot"),
    ("I used to live in Oslo.", (), "cannot"),
    ("I have not moved.", (), "cannot"),
    ("I'm not a nurse.", (), "cannot"),
    ("My brother said “I moved to Oslo”.", (), "cannot"),
    ("He says I live in Oslo.", (), "cannot"),
    ("His name is Bob.", (), "cannot"),
    ("Call me a taxi.", (), "cannot"),
    ("Call me back later.", (), "cannot"),
    ("Book me a flight to Oslo.", (), "cannot"),
    ("Translate: I live in Oslo.", (), "cannot"),
    ("I am a teapot.", (), "cannot"),
    ("I live in Oslo. Just kidding!", (), "cannot"),
    ("I'm five minutes late.", (), "cannot"),
    # Secrets
    ("My password is hunter2.", (), "secret"),
    ("My card number is 4111 1111 1111 1111.", (), "secret"),
    ("Remember that my PIN is 1234.", (), "secret"),
    # Talk
    ("What time is it?", (), "time"),
    ("What's the date today?", (), "date"),
    ("How are you?", (), "well"),
    ("Who are you?", (), "self"),
    ("Thanks!", (), "thanks"),
    ("Goodbye.", (), "goodbye"),
    ("Hello!", (), "hello"),
    ("What do you know about me?", (), "getUserProfile"),
    ("Why is the sky blue?", (), "cannot"),
    ("Tell me a joke.", (), "cannot"),
    ("The train was late.", (), "cannot"),
)
